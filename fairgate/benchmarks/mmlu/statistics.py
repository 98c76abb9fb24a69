"""Metrics of MMLU (Hendrycks et al. 2021): accuracy, by likelihood as a mean over subjects."""

from __future__ import annotations

from dataclasses import replace

from fairgate.benchmarks.families.accuracy import ACC
from fairgate.benchmarks.families.answers import (
    right,
    share,
    unanswered,
)
from fairgate.metrics.benchmark import Benchmark

_LIKELIEST = Benchmark(4, None, {"acc": replace(ACC, mean_over="groups")})
BENCHMARKS = {
    "mmlu": Benchmark(None, None, {"accuracy": share(right, "higher"), "no_answer": share(unanswered, "lower")}, generated=True),
    "mmlu_ll": _LIKELIEST,
    "mmlu_ll_5shot": _LIKELIEST,
}
