"""Terms that several benchmarks share: what an item adds to the numerator and the denominator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fairgate.metrics.items import EVALUATE, Array, Ints, Items, Mask
from fairgate.metrics.statistic import Terms
from fairgate.support.errors import BadRecord


def ones(items: Items) -> Array:
    """[n] ones: every item counts once."""
    return np.ones(len(items.ids))


def side(items: Items) -> Mask:
    """[n] whether the stereotype is preferred, of a benchmark that has sides."""
    biased = items.biased
    assert biased is not None
    return biased


def gold(items: Items) -> Ints:
    """[n] index of the right option; BadRecord where an item has none.

    Generated text has no scored options to count.
    """
    if items.gold is None or ((items.gold < 0) | ((items.gold >= items.options) & (items.options > 0))).any():
        raise BadRecord("an item has no gold option among its options", where=f"items of {items.benchmark}", remedy=EVALUATE)
    return items.gold


def accuracy(items: Items) -> Terms:
    """acc = right / n: the option of the largest summed log-likelihood; the first of equal ones."""
    return items.loglik.argmax(1) == gold(items), ones(items)


def accuracy_per_character(items: Items) -> Terms:
    """acc_norm = right / n: the option of the largest log-likelihood per character."""
    if items.chars is None or (items.chars < 1).any():
        raise BadRecord("an item has no n_chars, which acc_norm divides by", where=f"items of {items.benchmark}", remedy=EVALUATE)
    return (items.loglik / items.chars).argmax(1) == gold(items), ones(items)


def option_loglik(option: int) -> Callable[[Items], Terms]:
    """Terms of the mean over items of one option's log-likelihood per token, nats."""
    return lambda items: (items.per_token[:, option], ones(items))


def contrast(*weights: float) -> Callable[[Array], Array]:
    """ratios [..., k] -> their weighted sum [...]."""
    return lambda ratios: ratios @ np.array(weights)


def exponential(ratios: Array) -> Array:
    """ratios [..., 1] -> exp(ratio): the perplexity of a mean negative log-likelihood."""
    values: Array = np.exp(ratios[..., 0])
    return values
