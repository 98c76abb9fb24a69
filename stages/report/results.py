"""Numbers of the report: levels, paired changes against the reference, flips and power.

Everything shown as a result comes from the metric engine. Only `power` has a formula of its own: an
estimate for planning the next run, which no verdict uses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import norm

from fairgate.benchmarks import BENCHMARKS, benchmark_of, items_of
from fairgate.benchmarks.descriptions import description, descriptions
from fairgate.metrics import comparison
from fairgate.metrics.comparison import Interval
from fairgate.metrics.flips import flips, mcnemar
from fairgate.metrics.items import Items, benchmarks_of


@dataclass(frozen=True)
class HeadlineMetric:
    """One row of the results: a metric of the engine, how it is called and how it is printed.

    `scale` turns shares into percent.
    """

    key: str  # `<benchmark>.<metric>`, as in metrics.json
    name: str
    ideal: str
    digits: int = 1
    scale: float = 1.0

    @property
    def benchmark(self) -> str:
        return self.key.split(".")[0]


def _headline() -> dict[HeadlineMetric, str | None]:
    """The rows that the benchmarks ask for, in their order, each with the figure that shows it."""
    rows = [(row, f"{name}.{metric}") for name, task in descriptions().items() for metric, row in task.headline.items()]
    rows.sort(key=lambda pair: pair[0].place)
    return {HeadlineMetric(key, row.name, row.ideal, row.digits, row.scale): row.panel for row, key in rows}


_PANELS = _headline()
SUMMARY = tuple(_PANELS)
BIAS = tuple(metric for metric, panel in _PANELS.items() if panel == "bias")
ABILITY = tuple(metric for metric, panel in _PANELS.items() if panel == "ability")
(PERPLEXITY,) = (metric for metric, panel in _PANELS.items() if panel == "perplexity")
TITLES = {metric.benchmark: description(metric.benchmark).title for metric in (*BIAS, *ABILITY)}


@dataclass(frozen=True)
class Result:
    """One metric in one group for every recipe, in printed units.

    A change is a difference of distances from neutral for a two-sided metric, else a plain one.

    Args:
        metric: What is shown.
        group: None means all items.
        levels: The value of each recipe.
        changes: Each recipe against the reference, paired.
        versus: The candidate against each other quantized recipe, paired.
    """

    metric: HeadlineMetric
    group: str | None
    levels: Mapping[str, Interval]
    changes: Mapping[str, Interval]
    versus: Mapping[str, Interval]


@dataclass(frozen=True)
class Flip:
    """Items of one benchmark that changed from the reference to a recipe.

    `worse` counts items newly biased, or newly wrong.
    """

    benchmark: str
    recipe: str
    kind: str
    n: int
    worse: int
    better: int
    new_rate: float | None
    reverse_rate: float | None
    p: float

    @property
    def flip_rate(self) -> float:
        return (self.worse + self.better) / self.n


@dataclass(frozen=True)
class Power:
    """What a sample size can show: `error` is the standard error of the level, both in points."""

    name: str
    n: int
    error: float
    flipped: float
    detectable: float


def results(
    tables: Mapping[str, pa.Table], candidate: str, reference: str, *, confidence: float, draws: int, seed: int
) -> tuple[Result, ...]:
    """Every metric of SUMMARY that was evaluated, overall and, for bias, per group."""
    measured: list[Result] = []
    for metric in SUMMARY:
        if metric.benchmark not in benchmarks_of(tables[reference]):
            continue
        items = {recipe: items_of(table, metric.benchmark) for recipe, table in tables.items()}
        groups = [None, *(items[reference].groups if metric in BIAS else [])]
        measured += _results_of(metric, items, groups, (candidate, reference), (1 - confidence) / 2, draws, seed)
    return tuple(measured)


def _results_of(
    metric: HeadlineMetric,
    items: Mapping[str, Items],
    groups: Sequence[str | None],
    pair: tuple[str, str],
    alpha: float,
    draws: int,
    seed: int,
) -> list[Result]:
    candidate, reference = pair
    changes = {recipe: (recipe, reference) for recipe in items if recipe != reference}
    versus = {recipe: (candidate, recipe) for recipe in items if recipe not in pair}
    asked = [comparison.Slice(metric.key.split(".")[1], group) for group in groups]
    comparisons = comparison.compare(
        items, benchmark_of(metric.benchmark).statistics, asked, [*changes.values(), *versus.values()], alpha=alpha, draws=draws, seed=seed
    )

    def printed(estimates: Mapping[str, Interval]) -> dict[str, Interval]:
        return {recipe: estimate.scaled(metric.scale) for recipe, estimate in estimates.items()}

    return [
        Result(
            metric,
            compared.slice.group,
            printed(compared.levels),
            printed({recipe: compared.differences[key] for recipe, key in changes.items()}),
            printed({recipe: compared.differences[key] for recipe, key in versus.items()}),
        )
        for compared in comparisons
    ]


def all_flips(tables: Mapping[str, pa.Table], reference: str) -> tuple[Flip, ...]:
    """Flips of every benchmark and recipe: of bias if it has sides, else of right and wrong."""
    out = []
    for name in (n for n in TITLES if n in benchmarks_of(tables[reference])):
        base = items_of(tables[reference], name)
        for recipe, table in tables.items():
            if recipe != reference:
                out.append(_flip(name, recipe, items_of(table, name), base))
    return tuple(out)


def _flip(name: str, recipe: str, candidate: Items, base: Items) -> Flip:
    if BENCHMARKS[name].prefers:
        counts = flips(candidate, base)
        assert counts is not None and counts.newly_biased is not None and counts.newly_unbiased is not None and counts.p_value is not None
        return Flip(
            name, recipe, "bias", counts.n, counts.newly_biased, counts.newly_unbiased, counts.new_bias, counts.reverse, counts.p_value
        )
    now, before = _right(candidate), _right(base)
    worse, better = int((before & ~now).sum()), int((now & ~before).sum())
    right, wrong = int(before.sum()), int((~before).sum())
    new, reverse = (worse / right if right else None), (better / wrong if wrong else None)
    return Flip(name, recipe, "right or wrong", len(base.ids), worse, better, new, reverse, mcnemar(worse, better))


def _right(items: Items) -> npt.NDArray[np.bool_]:
    assert items.answer is not None and items.gold is not None
    return np.asarray(items.answer == items.gold)


def power(tables: Mapping[str, pa.Table], measured: Sequence[Result], candidate: str, reference: str) -> tuple[Power, ...]:
    """Smallest harm that n independent items decide with 80 % power at a one-sided 5 %.

    It is (z.95 + z.8) sqrt(f / n), where f is the share of items that changed between reference and
    candidate, or 3/n (the rule of three) if none did. The gate's own `detectable` comes from the
    verdict's resamples and knows about clusters; this one serves to plan another sample size.
    """
    z = norm.ppf(0.95) + norm.ppf(0.8)
    out = []
    for result in measured:
        if result.metric not in (*BIAS, *ABILITY[1:]):
            continue
        q, b = (items_of(tables[name], result.metric.benchmark) for name in (candidate, reference))
        inside = np.ones(len(q.ids), dtype=bool) if result.group is None else q.group == result.group
        n = int(inside.sum())
        assert q.answer is not None and b.answer is not None
        flipped = float(np.mean((q.answer != b.answer)[inside])) or 3 / n
        error = result.levels[candidate].stderr
        name = TITLES[result.metric.benchmark] + (f", {result.group}" if result.group else "")
        out.append(Power(name, n, error if error is not None else math.nan, flipped, float(100 * z * math.sqrt(min(flipped, 1.0) / n))))
    return tuple(out)
