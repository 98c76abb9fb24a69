"""Perplexity of plain text that is scored in windows: one option each."""

from __future__ import annotations

from fairgate.benchmarks.families.terms import exponential
from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.items import Items
from fairgate.metrics.statistic import Statistic, Terms


def _surprise(items: Items) -> Terms:
    """ppl = exp(-sum of log-likelihoods / tokens)."""
    return -items.loglik[:, 0], items.tokens[:, 0]


PERPLEXITY = Benchmark(1, None, {"ppl": Statistic(_surprise, "perplexity", better="lower", combine=exponential)})
