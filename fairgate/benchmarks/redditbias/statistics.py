"""Metrics of RedditBias (Barikeri et al. 2021).

The study of quantization and bias defines them.
"""

from __future__ import annotations

from fairgate.benchmarks.families.pairs import SIDES, prefers_per_token, study, untied
from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.statistic import Statistic

_STUDY = study("subgroups")
BENCHMARKS = {
    "redditbias": _STUDY,
    "redditbias_bos": _STUDY,
    "redditbias_orientation": _STUDY,
    "redditbias_valid": Benchmark(
        options=2,
        prefers=prefers_per_token,
        statistics={"ss": Statistic(untied, "%", neutral=50.0, span=100.0, mean_over="subgroups", empty=50.0), **SIDES},
    ),
}
