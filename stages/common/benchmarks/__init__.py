"""The benchmarks as data: what an item contributes to each metric, and the table of metrics by name.

Adding a metric is one `Statistic` in a module of this folder, never a second code path.
"""

from __future__ import annotations

from stages.common.benchmarks.capability import CAPABILITY
from stages.common.benchmarks.choices import CHOICES
from stages.common.benchmarks.pairs import PAIRS
from stages.common.benchmarks.terms import Benchmark, refuse
from stages.common.benchmarks.texts import TEXTS
from stages.common.errors import UnknownName
from stages.common.statistic import Statistic

__all__ = ["BENCHMARKS", "METRICS", "Benchmark", "benchmark_of", "metric", "refuse"]

BENCHMARKS: dict[str, Benchmark] = {**PAIRS, **CHOICES, **CAPABILITY, **TEXTS}
METRICS: dict[str, Statistic] = {f"{name}.{key}": s for name, b in BENCHMARKS.items() for key, s in b.statistics.items()}


def metric(name: str, *, where: str = "") -> Statistic:
    """The statistic called `<benchmark>.<metric>`; UnknownName gives the nearest right one."""
    if name not in METRICS:
        raise UnknownName.of("metric", name, METRICS, where=where)
    return METRICS[name]


def benchmark_of(name: str) -> Benchmark:
    """The benchmark called `name`; UnknownName gives the nearest right one."""
    if name not in BENCHMARKS:
        raise UnknownName.of("benchmark", name, BENCHMARKS, where="item table")
    return BENCHMARKS[name]
