"""Metrics of the pets."""

from __future__ import annotations

from fairgate.benchmarks.families.terms import ones, side
from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.items import Items, Mask
from fairgate.metrics.statistic import Statistic, Terms


def _prefers_cat(items: Items) -> Mask:
    """[n] whether the sentence about the cat has the larger log-likelihood per token."""
    return items.per_token[:, 0] > items.per_token[:, 1]


def _cats(items: Items) -> Terms:
    """pct_cat = 100 * cat preferred / n; 50 is neutral."""
    return 100.0 * side(items), ones(items)


BENCHMARKS = {
    "pets": Benchmark(
        options=2,
        prefers=_prefers_cat,
        statistics={"pct_cat": Statistic(_cats, "%", neutral=50.0, span=100.0)},
    )
}
