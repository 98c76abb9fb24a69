from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.contracts.records import Verdict
from fairgate.support.command import run_command
from fairgate.support.errors import FairgateError
from fairgate.support.exit_codes import ExitCode, exit_code_of


def test_every_verdict_has_an_exit_code() -> None:
    codes = {verdict: exit_code_of(verdict) for verdict in Verdict}
    assert codes == {Verdict.approve: 0, Verdict.reject: 1, Verdict.inconclusive: 3}


class Refusal(FairgateError):
    exit_code = ExitCode.negative


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (
            FairgateError("group size 7 does not divide 64", remedy="32"),
            2,
            "fairgate: error: group size 7 does not divide 64\nRemedy: 32\n",
        ),
        (Refusal("no"), 1, "fairgate: error: no\n"),
        (KeyboardInterrupt(), 130, "fairgate: interrupted; start it again\n"),
        (ZeroDivisionError("on purpose"), 4, "fairgate: error: this is a bug in fairgate (ZeroDivisionError: on purpose)\n"),
    ],
    ids=["wrong use", "negative", "interrupted", "bug"],
)
def test_how_a_command_ended_is_its_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: BaseException,
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    def fail() -> None:
        raise failure

    assert run_command("x", fail, interrupted="start it again") == code
    assert capsys.readouterr().err.startswith(said)


def test_a_command_that_answers_exits_by_its_answer() -> None:
    assert run_command("x", lambda: ExitCode.inconclusive, interrupted="") == 3
    assert run_command("x", lambda: 7, interrupted="") == 0  # any other result is not an answer


def test_a_traceback_that_cannot_be_written_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".fairgate").write_text("a file where the folder should be")
    assert run_command("x", lambda: 1 // 0, interrupted="") == 4
    assert "Traceback" in (printed := capsys.readouterr().err) and "the traceback, which is above" in printed
