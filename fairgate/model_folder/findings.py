"""What a check finds: faults that make a model unfit, and things that a user should know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fairgate.support.errors import FairgateError


@dataclass(frozen=True)
class Finding:
    """One thing about a model folder.

    error: what, where and remedy. unfit: whether the model cannot be used; else it is a note.
    """

    error: FairgateError
    unfit: bool = True


@dataclass(frozen=True)
class Report:
    """All that a check found.

    model: what the user calls the model. facts: what the folder holds, by name.
    """

    model: str
    findings: tuple[Finding, ...]
    facts: dict[str, str | int]

    @property
    def faults(self) -> list[FairgateError]:
        """What makes the model unfit."""
        return [finding.error for finding in self.findings if finding.unfit]

    @property
    def notes(self) -> list[FairgateError]:
        """What a user should know of a fit model."""
        return [finding.error for finding in self.findings if not finding.unfit]

    def require_fit(self) -> None:
        """Raise the fault, or one FairgateError that lists all of them."""
        faults = [_of(fault, self.model) for fault in self.faults]
        if len(faults) == 1:
            raise faults[0]
        if faults:
            listed = [f"{number}. {str(fault).replace(chr(10), ' ')}" for number, fault in enumerate(faults, 1)]
            remedy = "mend these, or give another model; `fairgate check` lists them again"
            raise FairgateError("\n".join([f"{len(faults)} faults:", *listed]), where=self.model, remedy=remedy)


def _of(error: FairgateError, model: str) -> FairgateError:
    """The error with the model's name before its file."""
    if error.where.startswith(model):
        return error
    return type(error)(error.what, where=f"{model}/{error.where}" if error.where else model, remedy=error.remedy)


def faults(errors: Iterable[FairgateError]) -> list[Finding]:
    """The errors as findings that make a model unfit."""
    return [Finding(error) for error in errors]


def note(what: str, *, where: str = "", remedy: str = "") -> Finding:
    """Something that a user should know."""
    return Finding(FairgateError(what, where=where, remedy=remedy), unfit=False)
