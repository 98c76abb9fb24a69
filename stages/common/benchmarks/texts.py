"""Benchmarks of plain text, scored in windows: one option each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stages.common.benchmarks.terms import Benchmark
from stages.common.statistic import Statistic, Terms

if TYPE_CHECKING:
    from stages.common.metrics import Items


def _surprise(items: Items) -> Terms:
    return -items.loglik[:, 0], items.tokens[:, 0]


_PERPLEXITY = Benchmark(1, None, {"ppl": Statistic(_surprise, "perplexity", better="lower", combine=lambda r: np.exp(r[..., 0]))})

TEXTS: dict[str, Benchmark] = {"perplexity": _PERPLEXITY, "perplexity_dev": _PERPLEXITY, "wikitext2": _PERPLEXITY}
