"""The benchmarks as data: what an item contributes to each metric, and the table of metrics by name.

Adding a metric is one `Statistic` in a module of this folder, never a second code path.
"""

from __future__ import annotations

import pyarrow as pa

from fairgate.benchmarks.families.capability import CAPABILITY
from fairgate.benchmarks.families.choices import CHOICES
from fairgate.benchmarks.families.generated import GENERATED
from fairgate.benchmarks.families.pairs import PAIRS
from fairgate.benchmarks.families.perplexity import TEXTS
from fairgate.benchmarks.families.probes import PROBES
from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.items import Items
from fairgate.metrics.statistic import Statistic
from fairgate.support.errors import UnknownName

__all__ = ["BENCHMARKS", "METRICS", "SMOKE", "benchmark_of", "items_of", "metric"]

BENCHMARKS: dict[str, Benchmark] = {**PAIRS, **CHOICES, **PROBES, **CAPABILITY, **TEXTS, **GENERATED}
SMOKE = "_smoke"
METRICS: dict[str, Statistic] = {f"{name}.{key}": s for name, b in BENCHMARKS.items() for key, s in b.statistics.items()}


def metric(name: str, *, where: str = "") -> Statistic:
    """The statistic called `<benchmark>.<metric>`; UnknownName gives the nearest right one."""
    if name not in METRICS:
        raise UnknownName.of("metric", name, METRICS, where=where)
    return METRICS[name]


def benchmark_of(name: str) -> Benchmark:
    """The benchmark called `name`, or what a smoke run calls it; UnknownName gives the nearest right one.

    Smoke runs have names of their own, which METRICS does not know: no policy and no report can take them for results.
    """
    bare = name.removesuffix(SMOKE)
    if bare in GENERATED:
        return GENERATED[bare]
    if name not in BENCHMARKS:
        raise UnknownName.of("benchmark", name, BENCHMARKS, where="item table")
    return BENCHMARKS[name]


def items_of(table: pa.Table, name: str) -> Items:
    """The items of the benchmark called `name` in an item table, with answers, sides and entropy."""
    return benchmark_of(name).items(table, name)
