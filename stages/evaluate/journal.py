"""Scores that outlive a kill: what is done of a task, batch by batch, bound to what it was made from.

    folder/<task>.1-of-1.jsonl   first what the scores depend on, then one line for every batch
           <task>.2-of-3.jsonl   the same of the second of three processes that share the batches

Lines are appended; the one that a kill cut short is dropped, and its batch is scored again. Numbers read back bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from fairgate.support.errors import FairgateError
from fairgate.support.locks import locked
from fairgate.support.log import log
from stages.evaluate.score import Batch

_BUSY = "another process scores this task"


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count`: every count-th batch."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise FairgateError(f"{text!r} is no part", where="--shard", remedy="give index/count, as in 1/2 and 2/2")
        return cls(int(index), int(count))

    def owns(self, number: int) -> bool:
        return number % self.count == self.index - 1


WHOLE = Shard()


@dataclass
class Journal:
    """The batches of a task that are done: their values (log-likelihoods, or texts), and in how many pieces the last one ran."""

    values: dict[int, list[Any]] = field(default_factory=dict)
    pieces: int = 1
    file: IO[bytes] | None = None

    def add(self, number: int, values: list[Any], pieces: int = 1) -> None:
        self.values[number] = values
        if self.file:
            self.file.write(json.dumps([number, pieces, values]).encode() + b"\n")
            self.file.flush()


@contextmanager
def open_journal(folder: Path | None, task: str, fingerprint: Mapping[str, Any], shard: Shard) -> Iterator[Journal]:
    """What is done of a task, by this process or by those that share it; nothing is kept on disk where there is no folder.

    Raises: FairgateError where another process works on the same part, or on parts of another division.
    """
    if folder is None:
        yield Journal()
        return
    folder.mkdir(parents=True, exist_ok=True)
    # As JSON gives it back, so that what is written equals what is compared.
    fingerprint = json.loads(json.dumps(fingerprint))
    own = folder / f"{task}.{shard.index}-of-{shard.count}.jsonl"
    found = Journal()
    with locked(own, busy=_BUSY) as file:
        for path in sorted(folder.glob(f"{task}.*.jsonl")):
            if path != own:
                shares = path.stem.endswith(f"-of-{shard.count}")
                with path.open("rb") if shares else locked(path, busy=_BUSY) as other:
                    _take(other, path, fingerprint, found)
        end = _take(file, own, fingerprint, found)
        file.truncate(end)
        if end == 0:
            file.write(json.dumps(fingerprint).encode() + b"\n")
            file.flush()
        if found.values:
            log.info("%s: going on with %d batches done", task, len(found.values))
        found.file = file
        yield found


def discard(folder: Path, tasks: Sequence[str]) -> None:
    """Remove what is kept of tasks whose table is written."""
    for task in tasks:
        for path in folder.glob(f"{task}.*.jsonl"):
            path.unlink()


def _take(file: IO[bytes], path: Path, fingerprint: Mapping[str, Any], found: Journal) -> int:
    """Add the whole lines of a file to `found`; returns where they end, 0 where they are of another run."""
    file.seek(0)
    text = file.read()
    end = text.rfind(b"\n") + 1
    head, *lines = text[:end].splitlines() or [b"{}"]
    stored = json.loads(head)
    if stored != fingerprint:
        if end:
            other = sorted(key for key in {*stored, *fingerprint} if stored.get(key) != fingerprint.get(key))
            log.warning("%s: the unfinished scores there differ in %s; they are dropped", path, ", ".join(other))
        return 0
    for number, pieces, values in map(json.loads, lines):
        found.values[number] = values
        found.pieces = max(found.pieces, pieces)
    return end


def digest(batches: Sequence[Batch]) -> str:
    """sha256 of what is read and scored, and in which batches."""
    found = hashlib.sha256()
    for batch in batches:
        for row in batch:
            found.update(np.array(row.tokens).tobytes())
            found.update(repr(row.reads).encode())
        found.update(b"batch")
    return found.hexdigest()
