"""Run one command and turn how it ended into an exit code and a message."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from fairgate.support.errors import FairgateError
from fairgate.support.exit_codes import ExitCode

TRACEBACKS = Path(".fairgate/tracebacks")


def run_command(name: str, command: Callable[[], object], *, interrupted: str, verbose: bool = False) -> int:
    """Run `command` and return its exit code.

    Args:
        name: the command's name in messages and in the file name of a traceback.
        command: returns an ExitCode. Any other result means ExitCode.done.
        interrupted: what to tell a user who pressed Ctrl-C.
        verbose: print the traceback of an unexpected exception, too.
    """
    try:
        outcome = command()
    except FairgateError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        print(f"fairgate: interrupted; {interrupted}", file=sys.stderr)
        return ExitCode.interrupted
    except Exception as error:
        if disk := _disk_problem(error):
            return _fail(disk, ExitCode.wrong_use)
        return _fail(_report_bug(name, error, verbose), ExitCode.bug)
    return outcome if isinstance(outcome, ExitCode) else ExitCode.done


def _fail(message: str, code: ExitCode) -> ExitCode:
    print(f"fairgate: error: {message}", file=sys.stderr)
    return code


def _disk_problem(error: Exception) -> str:
    """What to tell the user if the disk is full or closed to us; empty for any other exception."""
    if not isinstance(error, OSError | SafetensorError):
        return ""
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"not permitted ({error})\nRemedy: make it readable and the data folder writable"
    # The safetensors writer reports a full disk in words, without an error number.
    if number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
        return f"no disk space ({error}); nothing half-written was kept\nRemedy: free some, run again"
    return ""


def _report_bug(name: str, error: Exception, verbose: bool) -> str:
    """Write the traceback to a file and return one sentence that says where it is."""
    lines = "".join(traceback.format_exception(error))
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
    return f"this is a bug in fairgate ({type(error).__name__}: {error})\nRemedy: report it with the traceback, which is {place}"
