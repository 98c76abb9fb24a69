"""The errors a user is meant to read: what, where, value, remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

from fairgate.support.exit_codes import ExitCode
from fairgate.support.redaction import redact


class FairgateError(Exception):
    """An error that a user can act on. The command line prints it without a traceback.

    The command exits with the class's `exit_code`. The message holds no password or token, whatever
    the arguments hold.

    Args:
        what: what is wrong, with the offending value.
        where: file, key, record or module it was found in.
        remedy: what to do about it.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.wrong_use

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = map(_printable, (what, where, remedy))
        parts = [f"{self.where}: {self.what}" if where else self.what]
        if remedy:
            parts.append(f"Remedy: {self.remedy}")
        super().__init__(redact("\n".join(parts)))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.remedy)


def _printable(text: str) -> str:
    """The text with an escape for what is no character: names of files may be any bytes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _rebuild(kind: type[FairgateError], what: str, where: str, remedy: str) -> FairgateError:
    return kind(what, where=where, remedy=remedy)


class UnknownName(FairgateError):
    """A name that is not in a closed list; the message gives the nearest right one."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], *, where: str = "") -> UnknownName:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return cls(f"unknown {kind} {name!r}", where=where, remedy=f"{hint}known: {', '.join(known)}")


class BadRecord(FairgateError):
    """A record in a file breaks its contract; the message names file, record and field."""


class MissingFile(FairgateError):
    """A file that an earlier stage should have written is not there."""
