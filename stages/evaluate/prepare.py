"""Tasks made ready to be scored: read, drawn, tokenised and batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fairgate.support.digests import sha256_json
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.prefetch import prefetch
from stages.evaluate.score import Batch, batches_of
from stages.evaluate.settings import Evaluate
from stages.evaluate.subset import draw
from stages.evaluate.task import Task
from stages.evaluate.tokens import Encoded, Encoder


@dataclass(frozen=True)
class Prepared:
    """A task ready to be scored. `available`: items of the data; `beyond`: drawn items that are longer than the context."""

    benchmark: Task
    encoded: list[Encoded]
    batches: list[Batch]
    available: int
    beyond: int


@dataclass(frozen=True)
class Preparation:
    """Reads, tokenises and batches a task; a function that worker processes can be given."""

    catalogue: Catalogue
    encoder: Encoder
    settings: Evaluate
    masked: int | None
    batch_tokens: int

    def __call__(self, name: str) -> Prepared:
        settings, encoder = self.settings, self.encoder
        benchmark = self.catalogue.load(name)
        wanted = settings.tasks.get(benchmark.name)
        items = list(benchmark.items)
        if benchmark.window is None:
            items = draw(items, wanted, seed=settings.seed, benchmark=benchmark.name)
            encoded, available = encoder.encode(items, benchmark.name), len(benchmark.items)
        else:
            windows = encoder.windows(benchmark)
            items = draw([w.item for w in windows], wanted, seed=settings.seed, benchmark=benchmark.name)
            chosen = {item.id for item in items}
            encoded, available = [window for window in windows if window.item.id in chosen], len(windows)
        batches = batches_of(encoded, self.masked, self.batch_tokens)
        return Prepared(replace(benchmark, items=()), encoded, batches, available, len(items) - len(encoded))

    def key(self, name: str) -> str:
        """What a prepared task of one catalogue depends on."""
        tokenizer = self.encoder.tokenizer.backend_tokenizer.to_str()
        drawn = [self.settings.tasks.get(name), self.settings.seed]
        return sha256_json([name, tokenizer, self.encoder.start, self.encoder.context, self.masked, self.batch_tokens, drawn])


def parts(prepare: Preparation, names: Sequence[str], workers: int, ready: dict[str, Prepared] | None) -> Iterator[Prepared]:
    """The tasks in order, those that are ready as they are."""
    if ready is None:
        yield from prefetch(prepare, names, workers)
        return
    keys = {name: prepare.key(name) for name in names}
    made = prefetch(prepare, [name for name in names if keys[name] not in ready], workers)
    for key in keys.values():
        if key not in ready:
            ready[key] = next(made)
        yield ready[key]
