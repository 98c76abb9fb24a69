"""Metrics of WinoGrande (Sakaguchi et al. 2020): accuracy."""

from __future__ import annotations

from fairgate.benchmarks.families.accuracy import ACC
from fairgate.metrics.benchmark import Benchmark

BENCHMARKS = {"winogrande": Benchmark(2, None, {"acc": ACC})}
