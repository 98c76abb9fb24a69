"""The locale changes neither a name nor the end of a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline import environment

PRINTING = r"""
import argparse, sys
from fairgate.support.cli import run
sys.exit(run("test", lambda arguments: print("gr\xf6\xdfe \u6a21\u578b"), argparse.ArgumentParser(), []))
"""
NOT_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("extra", "code", "out", "error"),
    [
        ({"LC_ALL": "C"}, 0, "größe 模型", ""),
        ({"LC_ALL": "POSIX", "LANG": "de_DE"}, 0, "größe 模型", ""),
        ({"PYTHONIOENCODING": "ascii"}, 0, "gr\\xf6\\xdfe \\u6a21\\u578b", ""),
        (NOT_UTF8, 2, "", "file names are read as ascii, not as UTF-8"),
    ],
)
def test_a_locale_is_no_matter_or_is_refused(tmp_path: Path, extra: dict[str, str], code: int, out: str, error: str) -> None:
    command = [sys.executable, "-c", PRINTING]
    done = subprocess.run(command, cwd=tmp_path, env=environment(**extra), capture_output=True, encoding="utf-8", timeout=60)
    assert (done.returncode, done.stdout.strip()) == (code, out), done.stderr
    assert error in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["-m", "stages.register"], ["-m", "fairgate", "verify"]])
def test_stages_and_flows_refuse_before_anything_is_read(tmp_path: Path, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment(**NOT_UTF8), capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 2 and "set PYTHONUTF8=1" in done.stderr
