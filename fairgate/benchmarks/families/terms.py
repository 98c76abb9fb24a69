"""Terms that several benchmarks share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fairgate.metrics.items import EVALUATE, Array, Items
from fairgate.metrics.statistic import Terms
from fairgate.support.errors import BadRecord


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
