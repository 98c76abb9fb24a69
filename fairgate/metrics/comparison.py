"""Several models on the same items: levels and paired differences with intervals, all under the same resampled clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairgate.metrics.bootstrap import bootstrap, lower, upper
from fairgate.metrics.items import Array, Items
from fairgate.metrics.statistic import Components, Statistic

_ENOUGH = 0.95  # share of resamples that must have a value


@dataclass(frozen=True)
class Estimate:
    """A value of n items with its two-sided interval; `low` and `high` are None where too few clusters allow none."""

    value: float
    low: float | None
    high: float | None
    n: int
    stderr: float | None = None

    def scaled(self, by: float) -> Estimate:
        """The same in other units."""
        low, high, stderr = (None if x is None else by * x for x in (self.low, self.high, self.stderr))
        return Estimate(by * self.value, low, high, self.n, stderr)


@dataclass(frozen=True)
class Cell:
    """What is compared: a metric of the benchmark, overall, in a group, or in a subgroup of it."""

    metric: str
    group: str | None = None
    subgroup: str | None = None

    @property
    def label(self) -> str:
        return ", ".join(name for name in (self.group, self.subgroup) if name)


@dataclass(frozen=True)
class Comparison:
    """One cell: the level of each model, and the difference of each pair (model, other).

    A difference is one of distances from neutral for a two-sided metric, else the plain one.
    """

    cell: Cell
    levels: Mapping[str, Estimate]
    differences: Mapping[tuple[str, str], Estimate]


def every_cell(items: Items, statistics: Mapping[str, Statistic]) -> list[Cell]:
    """Every metric of a benchmark, overall, in each group, and in each subgroup (of all groups) that has a value of its own."""
    cells = []
    for metric, statistic in statistics.items():
        cells += [Cell(metric), *(Cell(metric, group) for group in items.groups)]
        cells += [Cell(metric, None, subgroup) for subgroup in items.subgroups() if statistic.divisible]
    return cells


def parts_of(comparisons: Sequence[Comparison], metric: str) -> dict[str, list[Comparison]]:
    """The comparisons of a metric by `group` and `subgroup`, where two or more parts have values."""
    found = [c for c in comparisons if c.cell.metric == metric and all(np.isfinite(level.value) for level in c.levels.values())]
    parts = {"group": [c for c in found if c.cell.group], "subgroup": [c for c in found if c.cell.subgroup]}
    return {kind: some for kind, some in parts.items() if len(some) > 1}


def worst_level(parts: Sequence[Comparison], statistic: Statistic, model: str) -> Comparison:
    """The part whose level is farthest from the ideal."""
    sign = -1 if statistic.better == "higher" else 1
    return max(parts, key=lambda c: sign * float(badness(statistic, np.asarray(c.levels[model].value))))


def worst_change(parts: Sequence[Comparison], statistic: Statistic, pair: tuple[str, str]) -> Comparison:
    """The part that changed most for the worse."""
    sign = -1 if statistic.better == "higher" else 1
    return max(parts, key=lambda c: sign * c.differences[pair].value)


def compare(
    items: Mapping[str, Items],
    statistics: Mapping[str, Statistic],
    cells: Sequence[Cell],
    pairs: Sequence[tuple[str, str]],
    *,
    alpha: float,
    draws: int,
    seed: int,
) -> list[Comparison]:
    """Levels and paired differences of one benchmark; items [model] hold the same ids, `alpha` is the error of each bound."""
    some = next(iter(items.values()))
    keys = [(model, cell) for cell in cells for model in items]
    parts = {(m, c): statistics[c.metric].components(items[m], group=c.group, subgroup=c.subgroup) for m, c in keys}
    samples = dict(zip(keys, bootstrap(list(parts.values()), some.strata, draws=draws, seed=seed), strict=True))

    points = {key: np.asarray(part.value) for key, part in parts.items()}

    def difference(cell: Cell, model: str, other: str) -> Estimate:
        value, resampled = (
            badness(statistics[cell.metric], of[model, cell]) - badness(statistics[cell.metric], of[other, cell])
            for of in (points, samples)
        )
        return _estimate(parts[model, cell], float(value), resampled, alpha, None)

    return [
        Comparison(
            cell,
            {m: _estimate(p := parts[m, cell], float(points[m, cell]), samples[m, cell], alpha, p.stderr) for m in items},
            {pair: difference(cell, *pair) for pair in pairs},
        )
        for cell in cells
    ]


def badness(statistic: Statistic, values: Array) -> Array:
    """Distance from neutral where there is one, else the value itself."""
    return values if statistic.neutral is None else np.abs(values - statistic.neutral)


def _estimate(part: Components, value: float, draws: Array, alpha: float, stderr: float | None) -> Estimate:
    low = high = None
    finite = np.isfinite(draws)  # a resample may miss a small group altogether; the rest, if it is few, stands for the group no more
    if part.clusters > 1 and finite.mean() > _ENOUGH:
        draws = draws[finite]
        low, high = (bound(draws, alpha, part.clusters) for bound in (lower, upper))
    return Estimate(value, low, high, part.items, stderr)
