"""Several models on the same items: levels and paired differences with intervals.

All models are resampled together: draw i takes the same clusters of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairgate.metrics.bootstrap import bootstrap, lower, upper
from fairgate.metrics.items import Array, Items
from fairgate.metrics.statistic import Components, Statistic

_ENOUGH = 0.95  # share of resamples that must have a value


@dataclass(frozen=True)
class Interval:
    """A value of n items with its two-sided interval.

    `low` and `high` are None where there are too few clusters for an interval.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    stderr: float | None = None

    def scaled(self, by: float) -> Interval:
        """The same in other units."""
        low, high, stderr = (None if x is None else by * x for x in (self.low, self.high, self.stderr))
        return Interval(by * self.value, low, high, self.n, stderr)


@dataclass(frozen=True)
class Slice:
    """A metric of the benchmark, overall, in a group, or in a subgroup."""

    metric: str
    group: str | None = None
    subgroup: str | None = None

    @property
    def label(self) -> str:
        """Group and subgroup; empty for the whole."""
        return ", ".join(name for name in (self.group, self.subgroup) if name)


@dataclass(frozen=True)
class Comparison:
    """The levels of all models in one slice, and the difference of each pair (model, baseline).

    For a two-sided metric, differences are between distances from neutral.
    """

    slice: Slice
    levels: Mapping[str, Interval]
    differences: Mapping[tuple[str, str], Interval]


def every_slice(items: Items, statistics: Mapping[str, Statistic]) -> list[Slice]:
    """Every metric overall, in each group, and in each subgroup that has a value of its own.

    Subgroups are taken over all groups.
    """
    slices = []
    for metric, statistic in statistics.items():
        slices += [Slice(metric), *(Slice(metric, group) for group in items.groups)]
        slices += [Slice(metric, None, subgroup) for subgroup in items.subgroups() if statistic.divisible]
    return slices


def parts_of(comparisons: Sequence[Comparison], metric: str) -> dict[str, list[Comparison]]:
    """The comparisons of a metric by `group` and `subgroup`, where two or more have values."""
    valued = [c for c in comparisons if c.slice.metric == metric and all(np.isfinite(level.value) for level in c.levels.values())]
    parts = {"group": [c for c in valued if c.slice.group], "subgroup": [c for c in valued if c.slice.subgroup]}
    return {kind: members for kind, members in parts.items() if len(members) > 1}


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
    slices: Sequence[Slice],
    pairs: Sequence[tuple[str, str]],
    *,
    alpha: float,
    draws: int,
    seed: int,
) -> list[Comparison]:
    """Levels and paired differences of one benchmark.

    Args:
        items: model -> its items; all hold the same ids.
        statistics: the benchmark's metrics by name.
        slices: what to compare.
        pairs: (model, baseline) whose differences are wanted.
        alpha: error of each bound.
        draws: resamples.
        seed: of the resamples.
    """
    first = next(iter(items.values()))
    keys = [(model, part) for part in slices for model in items]
    components = {(m, c): statistics[c.metric].components(items[m], group=c.group, subgroup=c.subgroup) for m, c in keys}
    samples = dict(zip(keys, bootstrap(list(components.values()), first.strata, draws=draws, seed=seed), strict=True))
    points = {key: np.asarray(part.value) for key, part in components.items()}

    def difference(part: Slice, model: str, baseline: str) -> Interval:
        value, resampled = (
            badness(statistics[part.metric], of[model, part]) - badness(statistics[part.metric], of[baseline, part])
            for of in (points, samples)
        )
        return _interval(components[model, part], float(value), resampled, alpha, None)

    return [
        Comparison(
            part,
            {m: _interval(c := components[m, part], float(points[m, part]), samples[m, part], alpha, c.stderr) for m in items},
            {pair: difference(part, *pair) for pair in pairs},
        )
        for part in slices
    ]


def badness(statistic: Statistic, values: Array) -> Array:
    """Distance from neutral where there is one, else the value itself."""
    return values if statistic.neutral is None else np.abs(values - statistic.neutral)


def _interval(part: Components, value: float, draws: Array, alpha: float, stderr: float | None) -> Interval:
    low = high = None
    # A resample may miss a small group altogether. Where many do, the others do not represent it.
    finite = np.isfinite(draws)
    if part.clusters > 1 and finite.mean() > _ENOUGH:
        draws = draws[finite]
        low, high = (bound(draws, alpha, part.clusters) for bound in (lower, upper))
    return Interval(value, low, high, part.items, stderr)
