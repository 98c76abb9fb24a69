from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairgate.contracts.records import Role
from fairgate.support.errors import FairgateError
from fairgate.support.files import read_json
from stages.evaluate import score
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.journal import Shard, open_journal
from tests.project import REPOSITORY
from tests.stages.evaluate.evaluation import evaluate

TASKS = ["stereoset", "boolq", "openbookqa"]
FILES = ("items.parquet", "metrics.json", "environment.json")


def run(work: Path, catalogue: Catalogue, settings: Any, out: Path, kept_in: Path | None = None, **changes: Any) -> None:
    shard = changes.pop("shard", Shard())
    evaluate(
        "base",
        work / "llama",
        out,
        settings(**{"batch_tokens": 64} | changes),
        catalogue,
        role=Role.gate,
        tasks=TASKS,
        work=kept_in,
        shard=shard,
    )


def same(one: Path, other: Path) -> None:
    for file in FILES:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every forward pass."""
    ran: list[int] = []
    launch = score._launch

    def counted(model: Any, rows: Any) -> Any:
        ran.append(len(rows))
        return launch(model, rows)

    monkeypatch.setattr(score, "_launch", counted)
    return ran


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from fairgate.contracts.records import Role
from stages.evaluate import journal
from stages.evaluate.catalogue import Catalogue
from tests.stages.evaluate.evaluation import evaluate
from stages.evaluate.settings import Evaluate

torch.set_num_threads(1)
folder, left = Path(sys.argv[1]), int(sys.argv[2])
add = journal.Journal.add

def last(self, *arguments):
    global left
    left -= 1
    if left == 0:  # in the middle of a line
        self.file.write(b'[7, 1, [-1.2')
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, *arguments)

journal.Journal.add = last
settings = Evaluate(role="gate", seed=0, device="cpu", dtype="float32", batch_tokens=64, tasks={})
catalogue = Catalogue(folder / "raw", folder / "split.json", folder / "tasks")
tasks = ["stereoset", "boolq", "openbookqa"]
evaluate("base", folder / "llama", Path("out"), settings, catalogue, role=Role.gate, tasks=tasks, work=Path("kept"))
"""


def test_a_killed_run_goes_on_and_no_batch_is_scored_twice(
    work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path, batches: list[int]
) -> None:
    run(work, catalogue, settings, tmp_path / "undisturbed")
    total = len(batches)
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = 0
    for left in (3, total // 2):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(work), str(left)], cwd=tmp_path, env=env, capture_output=True, timeout=120
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
        done += left - 1
        assert sum(len(path.read_bytes().splitlines()) - 1 for path in (tmp_path / "kept").iterdir()) == done + 1  # one is torn
    batches.clear()
    run(work, catalogue, settings, tmp_path / "out", tmp_path / "kept")
    assert len(batches) == total - done
    same(tmp_path / "undisturbed", tmp_path / "out")
    assert not list((tmp_path / "kept").iterdir())


def test_two_parts_make_the_same_table(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path, batches: list[int]) -> None:
    run(work, catalogue, settings, tmp_path / "one")
    total = len(batches)
    for index in (1, 2):
        run(work, catalogue, settings, tmp_path / "two", tmp_path / "kept", shard=Shard(index, 2))
        assert not (tmp_path / "two").exists()
    assert len(batches) == 2 * total
    run(work, catalogue, settings, tmp_path / "two", tmp_path / "kept")
    assert len(batches) == 2 * total
    same(tmp_path / "one", tmp_path / "two")


def test_scores_of_another_run_are_dropped_with_the_reason(
    work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path, batches: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    run(work, catalogue, settings, tmp_path / "never", tmp_path / "kept", shard=Shard(1, 1000))
    batches.clear()
    run(work, catalogue, settings, tmp_path / "out", tmp_path / "kept", dtype="bfloat16")
    assert "stereoset.1-of-1000.jsonl: the unfinished scores there differ in dtype; they are dropped" in caplog.text
    run(work, catalogue, settings, tmp_path / "fresh", dtype="bfloat16")
    same(tmp_path / "fresh", tmp_path / "out")


def test_two_processes_do_not_score_the_same(tmp_path: Path) -> None:
    with open_journal(tmp_path, "piqa", {}, Shard(1, 2)), open_journal(tmp_path, "piqa", {}, Shard(2, 2)):
        for shard in (Shard(1, 2), Shard(), Shard(2, 3)):
            with pytest.raises(FairgateError, match="another process scores this task"), open_journal(tmp_path, "piqa", {}, shard):
                pass


@pytest.mark.parametrize("text", ["2/1", "0/2", "1", "a/b", "1/2/3"])
def test_a_part_that_is_none_is_named(text: str) -> None:
    with pytest.raises(FairgateError, match="index/count"):
        Shard.parse(text)


def test_out_of_memory_cuts_the_batches(
    work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(work, catalogue, settings, tmp_path / "all", batch_tokens=512)
    launch = score._launch

    def small(model: Any, rows: Any) -> Any:
        if len(rows) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return launch(model, rows)

    monkeypatch.setattr(score, "_launch", small)
    run(work, catalogue, settings, tmp_path / "cut", batch_tokens=512)
    assert "out of memory: batches are scored in 2 pieces from here on" in caplog.text
    one, other = (read_json(tmp_path / name / "metrics.json") for name in ("all", "cut"))
    assert one == pytest.approx(other, abs=1e-4)


def test_memory_for_not_even_one_row_names_the_item(
    work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(model: Any, rows: Any) -> Any:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(score, "_launch", none)
    with pytest.raises(FairgateError, match=r"item 'item\d+': memory does not suffice for one row of \d+ tokens"):
        run(work, catalogue, settings, tmp_path / "never")


def test_processes_that_prepare_tasks_change_nothing(
    work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(work, catalogue, settings, tmp_path / "alone")
    monkeypatch.setattr("stages.evaluate.stage._workers", lambda model: 1)
    run(work, catalogue, settings, tmp_path / "beside")
    same(tmp_path / "alone", tmp_path / "beside")
    (tmp_path / "raw").mkdir()
    empty = Catalogue(tmp_path / "raw", work / "split.json", work / "tasks")
    monkeypatch.setattr(Catalogue, "require", lambda self, names, role: None)
    with pytest.raises(FairgateError, match="no data for"):
        run(work, empty, settings, tmp_path / "never")
