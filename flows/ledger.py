"""The ledger: who moved which alias, when and why.

It is a file of JSON lines, and each line holds the hash of the line before it. MLflow keeps none
of this: moving an alias overwrites a row, and tags carry no author.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from fairgate.contracts.records import Record
from fairgate.support.digests import sha256_json
from fairgate.support.errors import BadRecord, FairgateError
from fairgate.support.exit_codes import ExitCode
from fairgate.support.locks import locked

CHAMPION = "champion"
PREVIOUS = "previous"
FIRST = "0" * 64


class BrokenLedger(BadRecord):
    """The chain of the ledger does not hold."""

    exit_code = ExitCode.negative


class Entry(Record):
    """One move of the alias `champion`."""

    action: Literal["promote", "rollback"]
    model: str = Field(description="name of the registered model")
    before: str | None = Field(description="version that was champion; None means there was none")
    after: str = Field(description="version that is champion now")
    actor: str = Field(description="who moved the alias")
    reason: str = Field(description="why, in the actor's words")
    verdict_digest: str = Field(description="sha256 of the verdict.json of version `after`")
    time: str = Field(description="ISO 8601, UTC, in whole seconds")
    former_digest: str = Field(description="`digest` of the entry before; zeros in the first one")
    digest: str = Field(pattern="^[0-9a-f]{64}$", description="sha256 of all other fields")


class Ledger:
    """An append-only file. Reading it checks the whole chain.

    Raises:
        FairgateError: what is at `path` is no file.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise FairgateError("not a file", where=str(path), remedy="give the ledger's file as --ledger")
        self.path = path

    def entries(self) -> list[Entry]:
        """Every entry, oldest first.

        Raises:
            BrokenLedger: a line is no entry, was changed, or does not follow the line before it.
        """
        if not self.path.is_file():
            return []
        entries: list[Entry] = []
        # In bytes: a text has line ends that JSON does not escape.
        for number, line in enumerate(self.path.read_bytes().splitlines(), 1):
            former = entries[-1].digest if entries else FIRST
            try:
                entry = Entry.model_validate_json(line)
            except ValidationError as error:
                raise self._broken(number, f"not an entry ({error.errors()[0]['msg']})") from None
            if entry.digest != _digest(entry.model_dump()):
                raise self._broken(number, "the entry was changed after it was written")
            if entry.former_digest != former:
                raise self._broken(number, "the entry does not follow the one before it; a line was removed, added or moved")
            entries.append(entry)
        return entries

    def append(self, **fields: Any) -> Entry:
        """Add one entry, which is on disk when this returns. The chain is checked first."""
        with locked(self.path) as file:
            entries = self.entries()
            body = {
                **fields,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "former_digest": entries[-1].digest if entries else FIRST,
            }
            entry = Entry(**body, digest=_digest(body))
            size = os.fstat(file.fileno()).st_size
            try:
                line = json.dumps(entry.model_dump(), sort_keys=True, ensure_ascii=False) + "\n"
                file.write(line.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                os.ftruncate(file.fileno(), size)  # never leave half an entry
                raise
        return entry

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other promotions out.

        Reading the aliases, moving them and writing the entry is one step.
        """
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            yield

    def aliases(self, model: str) -> dict[str, str]:
        """Where the aliases of a model should point after every entry."""
        moves = [entry for entry in self.entries() if entry.model == model]
        if not moves:
            return {}
        last = moves[-1]
        return {CHAMPION: last.after, **({PREVIOUS: last.before} if last.before else {})}

    def _broken(self, number: int, what: str) -> BrokenLedger:
        remedy = "compare with the committed ledger (`git log -p`); do not promote before it is explained"
        return BrokenLedger(what, where=f"{self.path}:{number}", remedy=remedy)


def _digest(body: dict[str, Any]) -> str:
    return sha256_json({key: value for key, value in body.items() if key != "digest"})
