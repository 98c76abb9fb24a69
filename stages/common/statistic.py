"""The metric engine: item table x grouping x statistic. Every number, interval and plot of the project comes from here.

A statistic gives each item one or more numerators and denominators. They are summed per cluster (target term, passage, or the
item itself), and a value is a function of ratios of weighted sums over clusters:

    ratios = (w @ numerators) / (w @ denominators)        w [clusters]; numerators, denominators [clusters, k]
    value  = combine(ratios)                              w = 1: the point value; w resampled: a bootstrap draw
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from stages.common.errors import UnknownName

if TYPE_CHECKING:
    from stages.common.metrics import Items

Array = npt.NDArray[np.float64]
Terms = tuple[npt.ArrayLike, npt.ArrayLike]


def first(ratios: Array) -> Array:
    return ratios[..., 0]


def mean(ratios: Array) -> Array:
    return ratios.mean(-1)


@dataclass(frozen=True)
class Statistic:
    """One metric as ratios of sums.

    Args:
        terms: items (or candidate and reference items) -> numerators and denominators, each [n] or [n, k].
        unit: of the value.
        better: `higher` or `lower`, or None where `neutral` is the ideal.
        neutral: the ideal of a two-sided bias score.
        span: how far one item alone can move the value (100 for a percentage, 1 for a share); None: no limit.
        mean_over: what has equal weight: `items`, `clusters` (StereoSet's target terms) or `subgroups`.
        combine: ratios [..., k] -> value [...].
        empty: the ratio where the denominator is zero.
    """

    terms: Callable[..., Terms]
    unit: str
    better: Literal["higher", "lower"] | None = None
    neutral: float | None = None
    span: float | None = None
    mean_over: Literal["items", "clusters", "subgroups"] = "items"
    combine: Callable[[Array], Array] = first
    empty: float = np.nan

    def components(self, *tables: Items, group: str | None = None) -> Components:
        """Sums per cluster over all items, or over those of one group.

        Raises:
            UnknownName: a group that does not occur.
        """
        items = tables[0]
        if group is not None and group not in items.groups:
            raise UnknownName.of("group", group, items.groups, where=items.benchmark)
        inside = np.ones(len(items.ids), dtype=bool) if group is None else items.group == group
        numerators, denominators = (np.asarray(x, dtype=np.float64).reshape(len(items.ids), -1) for x in self.terms(*tables))
        weight = inside.astype(np.float64)
        combine = self.combine
        if self.mean_over == "clusters":
            weight = weight / np.maximum(np.bincount(items.cluster, weight, items.clusters)[items.cluster], 1)
        if self.mean_over == "subgroups":
            names = sorted({name or "" for name in items.subgroup[inside]})
            member = np.stack([items.subgroup == (name or None) for name in names], 1)
            numerators, denominators, combine = numerators * member, denominators * member, mean
        return Components(
            numerators=_sum(numerators * weight[:, None], items),
            denominators=_sum(denominators * weight[:, None], items),
            combine=combine,
            empty=self.empty,
            items=int(inside.sum()),
            clusters=len(np.unique(items.cluster[inside])),
        )


def _sum(values: Array, items: Items) -> Array:
    return np.stack([np.bincount(items.cluster, column, items.clusters) for column in values.T], 1)


@dataclass(frozen=True)
class Components:
    """Numerators and denominators summed per cluster, [clusters of the benchmark, k]; rows outside a group are zero.

    `items` and `clusters` count what the value rests on.
    """

    numerators: Array
    denominators: Array
    combine: Callable[[Array], Array]
    empty: float
    items: int
    clusters: int

    def of_sums(self, numerators: Array, denominators: Array) -> Array:
        """Value(s) from weighted sums [..., k]."""
        ratios = np.full(numerators.shape, self.empty)
        np.divide(numerators, denominators, out=ratios, where=denominators != 0)
        with np.errstate(over="ignore"):  # whoever uses a value asks whether it is finite
            return self.combine(ratios)

    @property
    def value(self) -> float:
        return float(self.of_sums(self.numerators.sum(0), self.denominators.sum(0)))

    @property
    def stderr(self) -> float | None:
        """Standard error over clusters by linearization (the delta method; exact for a mean); None below two clusters."""
        if self.clusters < 2:
            return None
        numerator, denominator = self.numerators.sum(0), self.denominators.sum(0)
        used = denominator != 0
        ratios = np.full(numerator.shape, self.empty)
        np.divide(numerator, denominator, out=ratios, where=used)
        step = 1e-6 * np.maximum(1.0, np.abs(ratios))
        slope = (self.combine(ratios + np.diag(step)) - self.combine(ratios - np.diag(step))) / (2 * step)
        residual = np.where(used, (self.numerators - ratios * self.denominators) / np.where(used, denominator, 1), 0)
        influence = residual @ np.nan_to_num(slope)
        return float(np.sqrt(self.clusters / (self.clusters - 1) * (influence**2).sum()))
