"""Run one command and turn how it ended into an exit code and a message."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from fairgate.support.errors import FairgateError
from fairgate.support.exit_codes import ExitCode
from fairgate.support.library_errors import is_failure, meaning, reason
from fairgate.support.log import hide_secrets_in_logs
from fairgate.support.output import enduring_output
from fairgate.support.redaction import redact

TRACEBACKS = Path(".fairgate/tracebacks")


def run_command(name: str, command: Callable[[], object], *, interrupted: str, verbose: bool = False) -> int:
    """Run `command` and return its exit code.

    Args:
        name: the command's name in messages and in the file name of a traceback.
        command: returns an ExitCode. Any other result means ExitCode.done.
        interrupted: what to tell a user who pressed Ctrl-C.
        verbose: print the traceback of an unexpected exception, too.
    """
    with enduring_output():
        return _run(name, command, interrupted, verbose)


def _run(name: str, command: Callable[[], object], interrupted: str, verbose: bool) -> int:
    hide_secrets_in_logs()
    try:
        _require_docstrings()
        outcome = command()
    except FairgateError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        print(f"fairgate: interrupted; {interrupted}", file=sys.stderr)
        return ExitCode.interrupted
    except BaseException as error:
        if not is_failure(error):
            raise
        if known := meaning(error):
            return _fail(str(known), known.exit_code)
        return _fail(_report_bug(name, error, verbose), ExitCode.bug)
    return outcome if isinstance(outcome, ExitCode) else ExitCode.done


def _require_docstrings() -> None:
    """Require that Python keeps docstrings: transformers builds models from its own.

    Raises:
        FairgateError: Python was told to strip them.
    """
    if sys.flags.optimize >= 2:
        what = "Python strips docstrings, and transformers cannot build a model without its own"
        raise FairgateError(what, where="PYTHONOPTIMIZE, python -OO", remedy="unset PYTHONOPTIMIZE, and give python no -OO")


def _fail(message: str, code: ExitCode) -> ExitCode:
    print(f"fairgate: error: {message}", file=sys.stderr)
    return code


def _report_bug(name: str, error: BaseException, verbose: bool) -> str:
    """Write the traceback to a file and return one sentence that says where it is."""
    lines = redact("".join(traceback.format_exception(error)))
    path = (TRACEBACKS / f"{name}.txt").absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines, encoding="utf-8")
    except OSError:  # without a place for the file, the terminal has to do
        verbose, place = True, "above"
    else:
        place = f"in {path}"
    if verbose:
        print(lines, file=sys.stderr)
    remedy = f"open an issue where you got this repository, with the traceback, which is {place}"
    return f"this is a bug in fairgate ({reason(error)})\nRemedy: {remedy}"
