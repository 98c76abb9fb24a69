"""Output that is cut off changes no exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.project import REPOSITORY

COMMAND = """
import sys
from fairgate.support.command import run_command
from fairgate.support.errors import FairgateError
from fairgate.support.exit_codes import ExitCode

def command():
    print("a verdict", flush={flush})
    print("x" * {more})
    print("and done", file=sys.stderr)
    {end}

sys.exit(run_command("x", command, interrupted=""))
"""
ENDS = {"return ExitCode.inconclusive": 3, "return ExitCode.negative": 1, "raise FairgateError('no')": 2}


def run(to: str, end: str, flush: bool, more: int) -> subprocess.CompletedProcess[str]:
    code = COMMAND.format(flush=flush, more=more, end=end)
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {to}', sys.executable, code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("flush", "more"), [(False, 1), (True, 100_000)])
@pytest.mark.parametrize("to", ["| true", ">/dev/full", ">&-", "2>&1 | true", "2>/dev/full"])
def test_the_exit_code_is_that_of_the_command_wherever_its_output_goes(to: str, flush: bool, more: int, end: str) -> None:
    done = run(to, end, flush, more)
    assert done.returncode == ENDS[end]
    assert "Error" not in done.stderr and "bug" not in done.stderr


def test_a_disk_too_full_for_the_output_is_said_and_a_reader_who_left_is_not() -> None:
    assert "output could not be written to its end (No space left" in run(">/dev/full", "return", False, 1).stderr
    assert run("| true", "return", True, 100_000).stderr == "and done\n"
