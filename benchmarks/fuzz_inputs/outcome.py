"""How a case ended."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Literal

from fairgate.support.errors import FairgateError

# refused: with an error that a user can act on. accepted: and all that follows agrees. late: the
# check accepted the input, and a later step refused it. failure: everything else.
End = Literal["refused", "accepted", "late", "failure"]


@dataclass(frozen=True)
class Outcome:
    """How an input was taken.

    what: the first line of the error; empty where there is none. details: a traceback.
    """

    end: End
    what: str = ""
    details: str = ""


class Disagreement(Exception):
    """The input is not what it was taken for."""


def refused(error: FairgateError, end: End = "refused") -> Outcome:
    """The outcome of an error that a user can act on, if it can be printed."""
    try:
        str(error).encode("utf-8")
    except UnicodeEncodeError as unprintable:
        return failure(unprintable)
    return Outcome(end, str(error).splitlines()[0])


def failure(error: BaseException) -> Outcome:
    """The outcome of any other exception."""
    what = f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace").decode()
    lines = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace").decode()
    return Outcome("failure", " ".join(what.split())[:400], lines)
