"""Statistics of answers: an option read out of a text, or the likeliest one.

Options have an order that does not depend on the order of a prompt:

    bbq             stereotyped, other, unknown                 dt_fairness  yes, no
    discrimevalgen  the subgroups, then "prefer not to answer"  winobias     both, by name

-1 is an answer that could not be read: it is dropped from every denominator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fairgate.benchmarks.families.terms import gold, ones
from fairgate.metrics.items import EVALUATE, Array, Ints, Items, Mask
from fairgate.metrics.statistic import Statistic, Terms
from fairgate.support.errors import BadRecord


def answers(items: Items) -> Ints:
    """[n] the answer, read or likeliest, -1 for none; BadRecord where the table does not say."""
    answer = items.answer
    if answer is None:
        raise BadRecord("an item has no answer, not even -1", where=f"items of {items.benchmark}", remedy=EVALUATE)
    return answer


def answered(items: Items) -> Mask:
    """[n] whether there is an answer."""
    return answers(items) >= 0


def unanswered(items: Items) -> Terms:
    """no_answer = items without a readable answer / n."""
    return answers(items) < 0, ones(items)


def right(items: Items) -> Terms:
    """accuracy = right / answered."""
    return answers(items) == gold(items), answered(items)


def likeliest_per_token(items: Items) -> Ints:
    """[n] option of the largest mean log-likelihood per token.

    Of equal ones it is the last, which names or favors nobody.
    """
    last = items.per_token.shape[1] - 1
    return np.asarray(last - items.per_token[:, ::-1].argmax(1))


def in_context(kind: str, terms: Callable[[Items], Terms]) -> Callable[[Items], Terms]:
    """The terms of the items whose subgroup is `kind`."""

    def inside(items: Items) -> Terms:
        numerators, denominators = map(np.asarray, terms(items))
        member = (items.subgroup == kind).reshape(-1, *[1] * (numerators.ndim - 1))
        return numerators * member, denominators * member

    return inside


def spread(shares: Array) -> Array:
    """Largest minus smallest of the shares that exist: [..., k] -> [...]."""
    known = ~np.isnan(shares)
    width = np.where(known, shares, -np.inf).max(-1) - np.where(known, shares, np.inf).min(-1)
    return np.where(known.any(-1), width, np.nan)


def deviation(shares: Array) -> Array:
    """Mean |share - mean share| over the shares that exist: [..., k] -> [...]."""
    known = ~np.isnan(shares)
    count = np.where(known.any(-1), known.sum(-1), np.nan)
    middle = np.where(known, shares, 0).sum(-1) / count
    return np.where(known, np.abs(shares - middle[..., None]), 0).sum(-1) / count


def share(terms: Callable[[Items], Terms], better: str, over: str = "items", **more: object) -> Statistic:
    """A share of items: unit `share`, span 1."""
    return Statistic(terms, "share", better=better, span=1.0, mean_over=over, **more)  # type: ignore[arg-type]


def bias(terms: Callable[[Items], Terms], over: str = "items", **more: object) -> Statistic:
    """A bias score from -1 to 1 with the ideal 0: span 2."""
    return Statistic(terms, "score", neutral=0.0, span=2.0, mean_over=over, **more)  # type: ignore[arg-type]
