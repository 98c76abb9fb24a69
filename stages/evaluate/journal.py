"""Answers that outlive a kill: finished batches of a task, bound to what they were made from.

    folder/<task>.1-of-1.jsonl   first what the answers depend on, then one line for every batch
           <task>.2-of-3.jsonl   the same of the second of three processes that share the batches

Lines are appended. A line that a kill cut short is dropped, and its batch is scored again. Numbers
are read back bit for bit.
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
    """The finished batches of a task.

    values: log-likelihoods or texts by the batch's number.
    pieces: how many pieces the last batch ran in, because memory ran out.
    file: where finished batches are appended. None means nowhere.
    """

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
    """The finished batches of a task, of this process and of those that share the task with it.

    Args:
        folder: where the journal lies. None means that it is not written.
        fingerprint: what the answers depend on; a journal with another one is dropped.
    Raises:
        FairgateError: another process scores the same shard, or shards of another division.
    """
    if folder is None:
        yield Journal()
        return
    folder.mkdir(parents=True, exist_ok=True)
    # As JSON gives it back, so that it equals what is read.
    fingerprint = json.loads(json.dumps(fingerprint))
    path = folder / f"{task}.{shard.index}-of-{shard.count}.jsonl"
    journal = Journal()
    with locked(path, busy=_BUSY) as file:
        for part in sorted(folder.glob(f"{task}.*.jsonl")):
            if part != path:
                shares = part.stem.endswith(f"-of-{shard.count}")
                with part.open("rb") if shares else locked(part, busy=_BUSY) as part_file:
                    _take(part_file, part, fingerprint, journal)
        end = _take(file, path, fingerprint, journal)
        file.truncate(end)
        if end == 0:
            file.write(json.dumps(fingerprint).encode() + b"\n")
            file.flush()
        if journal.values:
            log.info("%s: going on with %d batches done", task, len(journal.values))
        journal.file = file
        yield journal


def discard(folder: Path, tasks: Sequence[str]) -> None:
    """Remove the journals of tasks whose table is written."""
    for task in tasks:
        for path in folder.glob(f"{task}.*.jsonl"):
            path.unlink()


def _take(file: IO[bytes], path: Path, fingerprint: Mapping[str, Any], journal: Journal) -> int:
    """Add the whole lines of a file to the journal.

    Returns where they end, 0 if they are dropped.
    """
    file.seek(0)
    text = file.read()
    end = text.rfind(b"\n") + 1
    head, *lines = text[:end].splitlines() or [b"{}"]
    stored = json.loads(head)
    if stored != fingerprint:
        if end:
            differing = sorted(key for key in {*stored, *fingerprint} if stored.get(key) != fingerprint.get(key))
            log.warning("%s: the unfinished scores there differ in %s; they are dropped", path, ", ".join(differing))
        return 0
    for number, pieces, values in map(json.loads, lines):
        journal.values[number] = values
        journal.pieces = max(journal.pieces, pieces)
    return end


def digest(batches: Sequence[Batch]) -> str:
    """sha256 of what is read and scored, and in which batches."""
    content = hashlib.sha256()
    for batch in batches:
        for row in batch:
            content.update(np.array(row.tokens).tobytes())
            content.update(repr([tuple(target) for target in row.targets]).encode())
        content.update(b"batch")
    return content.hexdigest()
