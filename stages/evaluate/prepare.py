"""Tasks made ready to be scored: read, drawn, tokenized and batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from fairgate.support.digests import sha256_json
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.prefetch import prefetch
from stages.evaluate.rows import Packing
from stages.evaluate.score import Batch, batches_of
from stages.evaluate.settings import Evaluate
from stages.evaluate.subset import draw
from stages.evaluate.task import Task
from stages.evaluate.tokens import Encoded, Encoder


@dataclass(frozen=True)
class Prepared:
    """A task ready to be scored; its items are in `encoded`.

    available: number of items in the data.
    too_long: number of drawn items that exceed the context and are left out.
    """

    task: Task
    encoded: list[Encoded]
    batches: list[Batch]
    available: int
    too_long: int


@dataclass(frozen=True)
class Preparation:
    """Reads, tokenizes and batches a task by name. It can be sent to a worker process."""

    catalogue: Catalogue
    encoder: Encoder
    settings: Evaluate
    packing: Packing
    batch_tokens: int

    def __call__(self, name: str) -> Prepared:
        settings, encoder = self.settings, self.encoder
        task = self.catalogue.load(name)
        count = settings.tasks.get(task.name)
        items = list(task.items)
        if task.window is None:
            items = draw(items, count, seed=settings.seed, task=task.name)
            encoded, available = encoder.encode(items, task.name), len(task.items)
        else:
            windows = encoder.windows(task)
            items = draw([window.item for window in windows], count, seed=settings.seed, task=task.name)
            chosen = {item.id for item in items}
            encoded, available = [window for window in windows if window.item.id in chosen], len(windows)
        batches = batches_of(encoded, self.packing, self.batch_tokens)
        return Prepared(replace(task, items=()), encoded, batches, available, len(items) - len(encoded))

    def key(self, name: str) -> str:
        """Digest of what a prepared task of one catalogue depends on."""
        tokenizer = self.encoder.tokenizer.backend_tokenizer.to_str()
        drawn = [self.settings.tasks.get(name), self.settings.seed]
        return sha256_json([name, tokenizer, self.encoder.start, self.encoder.context, asdict(self.packing), self.batch_tokens, drawn])


class PreparedTasks:
    """Prepared tasks by `Preparation.key`, in memory, for models that share a tokenizer."""

    def __init__(self) -> None:
        self._tasks: dict[str, Prepared] = {}

    def has(self, key: str) -> bool:
        return key in self._tasks

    def get(self, key: str) -> Prepared:
        """The task of this key; KeyError if there is none."""
        return self._tasks[key]

    def put(self, key: str, task: Prepared) -> None:
        self._tasks[key] = task


def prepare_all(prepare: Preparation, names: Sequence[str], workers: int, store: PreparedTasks | None = None) -> Iterator[Prepared]:
    """The tasks in order, prepared ahead by `workers` processes; those of the store as they are.

    New tasks are put into the store.
    """
    if store is None:
        yield from prefetch(prepare, names, workers)
        return
    keys = {name: prepare.key(name) for name in names}
    # Asked once: another process may store a task while this one prepares it.
    missing = [name for name in names if not store.has(keys[name])]
    made = prefetch(prepare, missing, workers)
    for name, key in keys.items():
        if name in missing:
            store.put(key, next(made))
        yield store.get(key)
