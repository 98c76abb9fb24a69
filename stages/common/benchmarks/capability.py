"""Benchmarks of what a model can do: accuracy of choices."""

from __future__ import annotations

from stages.common.benchmarks.terms import Benchmark, accuracy, accuracy_per_character
from stages.common.statistic import Statistic

_ACC = Statistic(accuracy, "share", better="higher", span=1.0)
_ACC_NORM = Statistic(accuracy_per_character, "share", better="higher", span=1.0)

CAPABILITY: dict[str, Benchmark] = {
    "piqa": Benchmark(None, None, {"acc": _ACC, "acc_norm": _ACC_NORM}),
    "openbookqa": Benchmark(None, None, {"acc": _ACC, "acc_norm": _ACC_NORM}),
    "boolq": Benchmark(None, None, {"acc": _ACC}),
}
