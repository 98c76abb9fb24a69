from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from stages.evaluate import __main__, stage
from stages.evaluate.threads import announced, limit_threads, share_of
from tests.project import REPOSITORY

BESIDE = """
import sys
from pathlib import Path
from stages.evaluate.threads import announced

with announced(Path(sys.argv[1])) as running:
    print("here", flush=True)
    sys.stdin.readline()
    print(running(), flush=True)
    sys.stdin.readline()
"""


def start(folder: Path) -> subprocess.Popen[str]:
    """Another evaluation that has announced itself."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-c", BESIDE, str(folder)], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == "here\n"
    return process


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine of 64 cores, and the numbers of threads that were set."""
    taken: list[int] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    return taken


def test_evaluations_side_by_side_see_each_other_and_a_killed_one_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    with announced(tmp_path) as running:
        assert running() == 1
        others = [start(tmp_path)]
        assert running() == 2
        if (os.cpu_count() or 1) > 2:
            assert others[0].stdin and others[0].stdout
            others[0].stdin.write("\n")
            others[0].stdin.flush()
            assert others[0].stdout.readline() == "2\n"
        os.kill(others[0].pid, signal.SIGKILL)
        others[0].wait()
        assert running() == 1
    with announced(tmp_path) as running:
        assert running() == 1


def test_more_evaluations_than_cores_are_counted_as_far_as_there_are_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with announced(tmp_path), announced(tmp_path), announced(tmp_path) as running:
        assert running() == 3


@pytest.mark.parametrize(("cores", "running", "threads"), [(64, 1, 64), (64, 4, 16), (64, 100, 1), (2, 3, 2), (1, 2, 1)])
def test_who_is_alone_or_has_few_cores_takes_them_all(cores: int, running: int, threads: int) -> None:
    assert share_of(cores, running) == threads


def test_threads_are_set_only_for_a_share(cores: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    limit_threads(1)
    assert cores == []
    limit_threads(4)
    assert cores == [16]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    limit_threads(4)
    assert cores == [16]


@pytest.mark.parametrize(("shard", "threads"), [(None, [32]), ("1/2", [])])
def test_the_command_takes_its_share_unless_it_scores_a_part(
    shard: str | None, threads: list[int], cores: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = {"role": "gate", "seed": 0, "device": "cpu", "dtype": "float32", "batch_tokens": 64, "tasks": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"recipes": {"base": {"method": "none"}}, "evaluate": section}))
    monkeypatch.setattr(stage, "evaluate", lambda *arguments: {})
    monkeypatch.setattr(__main__, "announced", partial(announced, tmp_path / "locks"))
    options = {"recipe": "base", "role": None, "task": [], "all": False, "repeat": False, "smoke": False, "out": None}
    with announced(tmp_path / "locks"):
        __main__.main(argparse.Namespace(params=tmp_path / "params.yaml", shard=shard, **options))
    assert cores == threads
