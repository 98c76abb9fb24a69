"""Statistics of right and wrong: accuracy in sum and per character."""

from __future__ import annotations

from fairgate.benchmarks.families.terms import accuracy, accuracy_per_character
from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.statistic import Statistic

ACC = Statistic(accuracy, "share", better="higher", span=1.0)
ACC_NORM = Statistic(accuracy_per_character, "share", better="higher", span=1.0)

CHOICE = Benchmark(None, None, {"acc": ACC, "acc_norm": ACC_NORM})
