"""How a benchmark is scored: its options, what tells the stereotyped side, its statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from fairgate.metrics.items import Array, Ints, Items, Mask
from fairgate.metrics.statistic import Statistic


@dataclass(frozen=True)
class Benchmark:
    """One benchmark as data.

    Args:
        options: number of options; None means two or more.
        prefers: items -> [n] whether the stereotype is preferred; None means without sides.
        statistics: metrics by name.
        chooses: items -> [n] the chosen option. None means the preferred side, else the likeliest
            option in sum, the first of equal ones.
        alternatives: whether the options exclude each other. Spellings and parts of a probe do not:
            they have no entropy, and none of them is the likeliest.
        generated: whether answers are read out of text instead of log-likelihoods. A statistic may
            then rest on no item, and has no value.
    """

    options: int | None
    prefers: Callable[[Items], Mask] | None
    statistics: dict[str, Statistic]
    chooses: Callable[[Items], Ints] | None = None
    alternatives: bool = True
    generated: bool = False

    def items(self, table: pa.Table, name: str) -> Items:
        """The items of benchmark `name` in an item table, with answers, sides and entropy.

        Raises:
            FairgateError: the table has no item of the benchmark.
            BadRecord: an item breaks the contract.
        """
        return self.interpret(Items.of(table, name, options=self.options, generated=self.generated))

    def interpret(self, items: Items) -> Items:
        """The items with `answer`, `biased` and `entropy` derived from log-likelihoods or texts."""
        alternatives = self.alternatives and items.loglik.shape[1] > 1
        answer = items.given if self.generated else self.chooses(items) if self.chooses else None
        items = replace(items, answer=answer)
        biased = self.prefers(items) if self.prefers else None
        if not self.generated and not self.chooses:
            if biased is not None:
                answer = np.where(biased, 0, 1).astype(np.int64)
            elif alternatives:
                answer = items.loglik.argmax(1).astype(np.int64)
        return replace(items, answer=answer, biased=biased, entropy=_entropy(items) if alternatives else None)


def _entropy(items: Items) -> Array:
    """[n] H(softmax(loglik)) / log(options): 0 certain .. 1 uniform."""
    p = np.exp(items.loglik - items.loglik.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1))).sum(1) / np.log(items.options))
