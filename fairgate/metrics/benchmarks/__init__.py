"""The benchmarks as data: what an item contributes to each metric, and the table of metrics by name.

Adding a metric is one `Statistic` in a module of this folder, never a second code path.
"""

from __future__ import annotations

from fairgate.metrics.benchmarks.capability import CAPABILITY
from fairgate.metrics.benchmarks.choices import CHOICES
from fairgate.metrics.benchmarks.generated import GENERATED
from fairgate.metrics.benchmarks.pairs import PAIRS
from fairgate.metrics.benchmarks.perplexity import TEXTS
from fairgate.metrics.benchmarks.probes import PROBES
from fairgate.metrics.benchmarks.terms import Benchmark, refuse
from fairgate.metrics.statistic import Statistic
from fairgate.support.errors import UnknownName

__all__ = ["BENCHMARKS", "METRICS", "SMOKE", "Benchmark", "benchmark_of", "metric", "refuse"]

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
