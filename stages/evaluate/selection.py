"""Which tasks an evaluation runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairgate.contracts.records import Role
from fairgate.support.errors import FairgateError, MissingFile
from fairgate.support.log import log
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.settings import Evaluate


@dataclass(frozen=True)
class Selection:
    """A request for tasks.

    role: the role that the tasks and their data must have.
    tasks: names. If empty, those of `evaluate.tasks` that have the role; where none has it, every
        likelihood task of the role whose data are there.
    smoke: score a few items of tasks with generated text, to see that they run.
    """

    catalogue: Catalogue
    role: Role
    tasks: Sequence[str] = ()
    smoke: bool = False

    def resolve(self, settings: Evaluate) -> Chosen:
        """The tasks to run.

        Raises:
            UnknownName: a task that the catalogue does not have.
            MissingFile: the data of a task are missing, or of every task of the role.
            FairgateError: a task or its data have another role; a smoke run of a likelihood task.
        """
        names, skipped = self._names(settings)
        generated = [name for name in names if self.catalogue.is_generated(name)]
        scored = [name for name in names if name not in generated]
        if self.smoke and scored:
            raise FairgateError("a smoke run is for tasks with generated text", where=f"task {scored[0]}", remedy="run it as it is")
        self.catalogue.require(names, self.role)
        return Chosen(scored, generated, skipped)

    def _names(self, settings: Evaluate) -> tuple[list[str], dict[str, str]]:
        """The tasks to run, and the tasks that are skipped with the reason."""
        catalogue = self.catalogue
        named = list(dict.fromkeys(self.tasks)) or [name for name in settings.tasks if catalogue.metadata(name)["role"] == self.role]
        if named:
            return named, {}
        names = [name for name in catalogue.names if catalogue.metadata(name)["role"] == self.role and not catalogue.is_generated(name)]
        skipped = {name: reason for name in names if (reason := catalogue.absent(name))}
        for name, reason in skipped.items():
            log.warning("%s: skipped, %s", name, reason)
        if len(skipped) == len(names):
            raise MissingFile(f"no data for any task of the role {self.role}", where="data/raw", remedy="run `dvc repro fetch`")
        return [name for name in names if name not in skipped], skipped


@dataclass(frozen=True)
class Chosen:
    """Names of the tasks to run: by log-likelihood, by generated text.

    skipped: tasks that were not asked for by name and have no data, with the reason.
    """

    scored: list[str]
    generated: list[str]
    skipped: dict[str, str]

    @property
    def names(self) -> list[str]:
        return [*self.scored, *self.generated]
