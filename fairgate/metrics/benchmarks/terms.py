"""What a benchmark is, and the terms that several of them share; the statistics of each are in the other modules of this folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fairgate.metrics.statistic import Array, Statistic, Terms
from fairgate.support.errors import BadRecord

if TYPE_CHECKING:
    from fairgate.metrics.estimates import Items

EVALUATE = "run `dvc repro evaluate` to write it again"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark as data: number of options (None: two or more), how its stereotyped side is told, its statistics.

    chooses: what an item's answer is; without it the side, or the likeliest option in sum, the first of equal ones.
    alternatives: whether one of the options is chosen; without (spellings, parts of a probe) there is no entropy, and no likeliest option.
    generated: answers are read out of text instead of log-likelihoods; a statistic may then rest on no item, and has no value.
    """

    options: int | None
    prefers: Callable[[Items], npt.NDArray[np.bool_]] | None
    statistics: dict[str, Statistic]
    chooses: Callable[[Items], npt.NDArray[np.int64]] | None = None
    alternatives: bool = True
    generated: bool = False


def refuse(wrong: npt.NDArray[np.bool_] | np.bool_, ids: list[str], benchmark: str, what: str) -> None:
    """Raise BadRecord naming the first wrong item and how many there are."""
    if wrong.any():
        item = ids[int(np.argmax(wrong))]
        raise BadRecord(f"item {item!r}: {what} ({int(wrong.sum())} such items)", where=f"items of {benchmark}", remedy=EVALUATE)


def ones(items: Items) -> Array:
    return np.ones(len(items.ids))


def side(items: Items) -> npt.NDArray[np.bool_]:
    """[n] whether the stereotype is preferred, of a benchmark that has sides."""
    found = items.biased
    assert found is not None
    return found


def gold(items: Items) -> npt.NDArray[np.int64]:
    """[n] index of the right option; BadRecord where an item has none. Generated text has no scored options to count."""
    if items.gold is None or ((items.gold < 0) | ((items.gold >= items.options) & (items.options > 0))).any():
        raise BadRecord("an item has no gold option among its options", where=f"items of {items.benchmark}", remedy=EVALUATE)
    return items.gold


def accuracy(items: Items) -> Terms:
    """Terms of the accuracy by summed log-likelihood; the first of equal options wins."""
    return items.loglik.argmax(1) == gold(items), ones(items)


def accuracy_per_character(items: Items) -> Terms:
    """Terms of the accuracy by log-likelihood per character of the option."""
    if items.chars is None or (items.chars < 1).any():
        raise BadRecord("an item has no n_chars, which acc_norm divides by", where=f"items of {items.benchmark}", remedy=EVALUATE)
    return (items.loglik / items.chars).argmax(1) == gold(items), ones(items)


def option_loglik(option: int) -> Callable[[Items], Terms]:
    """Terms of the mean log-likelihood per token of one option."""
    return lambda items: (items.per_token[:, option], ones(items))


def contrast(*weights: float) -> Callable[[Array], Array]:
    """ratios -> their weighted sum."""
    return lambda ratios: ratios @ np.array(weights)
