"""Metrics of BoolQ (Clark et al. 2019): accuracy."""

from __future__ import annotations

from fairgate.benchmarks.families.accuracy import ACC
from fairgate.metrics.benchmark import Benchmark

BENCHMARKS = {"boolq": Benchmark(None, None, {"acc": ACC})}
