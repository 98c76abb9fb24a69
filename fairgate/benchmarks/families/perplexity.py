"""Benchmarks of plain text, scored in windows: one option each."""

from __future__ import annotations

import numpy as np

from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.items import EVALUATE, Array, Items
from fairgate.metrics.statistic import Statistic, Terms
from fairgate.support.errors import BadRecord


def _surprise(items: Items) -> Terms:
    return -items.loglik[:, 0], items.tokens[:, 0]


def _surprise_per_word(items: Items) -> Terms:
    """A page counts its words, in n_chars of its first window."""
    if items.chars is None:
        raise BadRecord("an item has no n_chars, which holds the words of its page", where=f"items of {items.benchmark}", remedy=EVALUATE)
    return -items.loglik[:, 0], items.chars[:, 0]


def _exp(ratios: Array) -> Array:
    found: Array = np.exp(ratios[..., 0])
    return found


_PERPLEXITY = Benchmark(1, None, {"ppl": Statistic(_surprise, "perplexity", better="lower", combine=_exp)})

TEXTS: dict[str, Benchmark] = {
    **dict.fromkeys(("perplexity", "perplexity_dev", "wikitext2", "wikitext2_2048"), _PERPLEXITY),
    "wikitext_lmeval": Benchmark(1, None, {"word_ppl": Statistic(_surprise_per_word, "perplexity per word", better="lower", combine=_exp)}),
}
