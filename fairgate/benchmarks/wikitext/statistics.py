"""Metrics of WikiText-2 (Merity et al. 2017)."""

from __future__ import annotations

from fairgate.benchmarks.families.perplexity import PERPLEXITY
from fairgate.benchmarks.families.terms import exponential
from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.items import EVALUATE, Items
from fairgate.metrics.statistic import Statistic, Terms
from fairgate.support.errors import BadRecord


def _surprise_per_word(items: Items) -> Terms:
    """word_ppl = exp(-sum of log-likelihoods / words of the raw page).

    A page counts its words in n_chars of its first window.
    """
    if items.chars is None:
        raise BadRecord("an item has no n_chars, which holds the words of its page", where=f"items of {items.benchmark}", remedy=EVALUATE)
    return -items.loglik[:, 0], items.chars[:, 0]


_PER_WORD = Statistic(_surprise_per_word, "perplexity per word", better="lower", combine=exponential)
BENCHMARKS = {"wikitext2": PERPLEXITY, "wikitext2_2048": PERPLEXITY, "wikitext_lmeval": Benchmark(1, None, {"word_ppl": _PER_WORD})}
