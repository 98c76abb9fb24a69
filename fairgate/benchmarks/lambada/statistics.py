"""Metrics of LAMBADA (Paperno et al. 2016)."""

from __future__ import annotations

import numpy as np

from fairgate.benchmarks.families.accuracy import ACC
from fairgate.benchmarks.families.terms import exponential, ones
from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.items import Ints, Items
from fairgate.metrics.statistic import Statistic, Terms


def _surprise(items: Items) -> Terms:
    """ppl = exp(-mean log-likelihood of the last word)."""
    return -items.loglik[:, 0], ones(items)


def _likeliest(items: Items) -> Ints:
    """[n] 0 where the word is as likely as the likeliest tokens at its places.

    Greedy decoding then gives it.
    """
    return items.loglik.argmax(1).astype(np.int64)


# Options: the word, and the likeliest token at each of its places.
BENCHMARKS = {
    "lambada": Benchmark(
        2,
        None,
        {"acc": ACC, "ppl": Statistic(_surprise, "perplexity", better="lower", combine=exponential)},
        chooses=_likeliest,
        alternatives=False,
    )
}
