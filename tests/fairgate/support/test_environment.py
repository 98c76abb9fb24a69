"""A variable of the environment that Python or a library cannot use is told by its name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline import environment


@pytest.mark.parametrize("command", [["fairgate", "check", "."], ["fairgate", "verify"], ["stages.fetch"], ["stages.register"]])
def test_docstrings_that_python_strips_are_asked_back(tmp_path: Path, command: list[str]) -> None:
    refuses(tmp_path, command, "unset PYTHONOPTIMIZE", PYTHONOPTIMIZE="2")


@pytest.mark.parametrize("variable", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"])
@pytest.mark.parametrize("command", [["stages.fetch"], ["stages.gate"]])
def test_a_variable_that_the_hub_cannot_read_is_told(tmp_path: Path, command: list[str], variable: str) -> None:
    refuses(tmp_path, command, "the environment variables HF_*: ", **{variable: "soon"})


@pytest.mark.parametrize("command", [["fairgate", "verify"], ["stages.register"]])
def test_a_variable_that_mlflow_cannot_read_is_told(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "params.yaml").write_text("model: tiny\n")
    refuses(tmp_path, command, "the environment variables MLFLOW_*: ", MLFLOW_LOGGING_LEVEL="verbose")


def refuses(folder: Path, command: list[str], said: str, **variables: str) -> None:
    """The command is refused with these words and without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "\nRemedy: " in done.stderr and "Traceback" not in done.stderr
