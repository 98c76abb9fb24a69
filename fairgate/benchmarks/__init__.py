"""The benchmarks, one folder each: task files, dataset hooks, statistics, and what they are called.

A folder holds `<task>.yaml` (data, prompt, options, role, title), `hooks.py` (what the task files
call `!function`) and `statistics.py`, whose `BENCHMARKS` maps each task to how it is scored.
Folders are found by looking: there is no list. Adding a metric is one `Statistic` in a folder.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import pyarrow as pa

from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.items import Items
from fairgate.metrics.statistic import Statistic
from fairgate.support.errors import UnknownName

__all__ = ["BENCHMARKS", "METRICS", "SMOKE", "benchmark_of", "items_of", "metric"]

SMOKE = "_smoke"


def _folders() -> list[str]:
    return [module.name for module in iter_modules(__path__) if module.ispkg and module.name != "families"]


BENCHMARKS: dict[str, Benchmark] = {
    name: benchmark for folder in _folders() for name, benchmark in import_module(f"{__name__}.{folder}.statistics").BENCHMARKS.items()
}
METRICS: dict[str, Statistic] = {f"{name}.{key}": s for name, b in BENCHMARKS.items() for key, s in b.statistics.items()}


def metric(name: str, *, where: str = "") -> Statistic:
    """The statistic called `<benchmark>.<metric>`; UnknownName gives the nearest right one."""
    if name not in METRICS:
        raise UnknownName.of("metric", name, METRICS, where=where)
    return METRICS[name]


def benchmark_of(name: str) -> Benchmark:
    """The benchmark called `name`, or what a smoke run calls it; UnknownName gives the nearest one.

    Smoke runs have names of their own, which METRICS does not know: no policy and no report can
    take them for results.
    """
    bare = name.removesuffix(SMOKE)
    if bare in BENCHMARKS and BENCHMARKS[bare].generated:
        return BENCHMARKS[bare]
    if name not in BENCHMARKS:
        raise UnknownName.of("benchmark", name, BENCHMARKS, where="item table")
    return BENCHMARKS[name]


def items_of(table: pa.Table, name: str) -> Items:
    """The items of the benchmark `name` in an item table, with answers, sides and entropy."""
    return benchmark_of(name).items(table, name)
