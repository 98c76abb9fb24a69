"""The metric engine: item table x grouping x statistic gives every number and interval.

A statistic gives each item one or more numerators and denominators. They are summed per cluster
(target term, passage, or the item itself). A value is a function of ratios of weighted sums over
clusters:

    ratios = (w @ numerators) / (w @ denominators)      w [clusters]; the others [clusters, k]
    value  = combine(ratios)                            w = 1: the value; w resampled: a draw

A hierarchical mean has such a value in every cell (a group, or a subgroup of it) and gives the
cells equal weight:

    value  = mean over groups of across(values of the group's subgroups)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fairgate.metrics.items import Array, Items

Terms = tuple[npt.ArrayLike, npt.ArrayLike]


def first(ratios: Array) -> Array:
    """ratios [..., k] -> the first one [...]."""
    return ratios[..., 0]


def mean(ratios: Array) -> Array:
    """ratios [..., k] -> their mean [...]."""
    return ratios.mean(-1)


@dataclass(frozen=True)
class Statistic:
    """One metric as ratios of sums.

    Args:
        terms: items (or candidate and reference items) -> numerators and denominators, each [n]
            or [n, k].
        unit: of the value.
        better: `higher` or `lower`; None means that `neutral` is the ideal.
        neutral: the ideal of a two-sided bias score.
        span: how far one item alone can move the value: 100 for a percentage, 1 for a share. None
            means no limit.
        mean_over: what has equal weight.
            `items`      every item: a plain mean
            `clusters`   every cluster, whatever its size: StereoSet's target terms
            `groups`     every group: the value of each, then their mean
            `subgroups`  every subgroup, over all groups: the value of each, then their mean
            `hierarchy`  every group, and within a group every subgroup: the value of each subgroup,
                         `across` them the value of the group, then the mean over groups
        combine: ratios [..., k] -> value [...] of one cell.
        across: values of a group's subgroups [..., subgroups] -> value of the group [...].
        empty: the ratio where the denominator is zero. If NaN, a cell without any denominator (no
            item has an answer) is left out of the mean, and a resample that empties a cell has no
            value.
        gap: whether the terms compare the subgroups of an item's cluster.
    """

    terms: Callable[..., Terms]
    unit: str
    better: Literal["higher", "lower"] | None = None
    neutral: float | None = None
    span: float | None = None
    mean_over: Literal["items", "clusters", "subgroups", "groups", "hierarchy"] = "items"
    combine: Callable[[Array], Array] = first
    across: Callable[[Array], Array] = mean
    empty: float = np.nan
    gap: bool = False

    @property
    def divisible(self) -> bool:
        """Whether a subgroup alone has a value: a gap between subgroups has none."""
        return self.across is mean and not self.gap

    def components(self, *tables: Items, group: str | None = None, subgroup: str | None = None) -> Components:
        """Sums per cluster over all items, or over those of a group, a subgroup, or both.

        Raises:
            UnknownName: a group or subgroup that does not occur.
        """
        items = tables[0]
        inside = items.inside(group, subgroup)
        numerators, denominators = (np.asarray(x, dtype=np.float64).reshape(len(inside), -1) for x in self.terms(*tables))
        # Only some items have a denominator: the ambiguous ones, or those with an answer.
        counted = inside & (denominators != 0).any(1)
        weight = inside.astype(np.float64)
        if self.mean_over == "clusters":
            weight = weight / np.maximum(np.bincount(items.cluster, weight, items.clusters)[items.cluster], 1)
        cell, members = self._cells(items, inside)
        top, bottom = (_sum(values * weight[:, None], items, cell, members.size) for values in (numerators, denominators))
        k, combine = numerators.shape[1], self.combine
        if self.mean_over not in ("items", "clusters"):
            valued = (bottom.sum(0).reshape(-1, k) != 0).any(1) | ~np.isnan(self.empty)
            combine = self._hierarchical(members, k, valued if valued.any() else ~valued)
        return Components(
            numerators=top,
            denominators=bottom,
            combine=combine,
            empty=self.empty,
            items=int(counted.sum()),
            clusters=len(np.unique(items.cluster[counted])),
        )

    def _cells(self, items: Items, inside: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Code of each item's cell [n], 0 outside; and the group of each cell [cells].

        Items without a name share a cell.
        """
        nameless = np.zeros(len(inside), dtype=np.int64)
        group = items.group_codes[1] + 1 if self.mean_over in ("groups", "hierarchy") else nameless
        subgroup = items.subgroup_codes[1] + 1 if self.mean_over in ("subgroups", "hierarchy") else nameless
        names = len(items.subgroup_codes[0]) + 1
        cells, inverse = np.unique((group * names + subgroup)[inside], return_inverse=True)
        code = np.zeros(len(inside), dtype=np.int64)
        code[inside] = inverse
        return code, cells // names

    def _hierarchical(self, members: npt.NDArray[np.int64], k: int, valued: npt.NDArray[np.bool_]) -> Callable[[Array], Array]:
        """Ratios [..., cells * k] -> mean over groups of `across` the values of their cells."""
        groups = [np.flatnonzero((members == group) & valued) for group in np.unique(members[valued])]

        def value(ratios: Array) -> Array:
            cells = self.combine(ratios.reshape(*ratios.shape[:-1], -1, k))
            return mean(np.stack([self.across(cells[..., cell]) for cell in groups], -1))

        return value


def _sum(values: Array, items: Items, cell: npt.NDArray[np.int64], cells: int) -> Array:
    """Values [n, k] of items summed per cluster and cell: [clusters, cells * k]."""
    place = items.cluster * cells + cell
    sums: Array = np.stack([np.bincount(place, column, items.clusters * cells) for column in values.T], -1)
    return sums.reshape(items.clusters, cells * values.shape[1])


@dataclass(frozen=True)
class Components:
    """Numerators and denominators summed per cluster: [clusters of the benchmark, k].

    Rows outside a group are zero.

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
        with np.errstate(over="ignore"):  # callers ask whether a value is finite
            return self.combine(ratios)

    @property
    def value(self) -> float:
        return float(self.of_sums(self.numerators.sum(0), self.denominators.sum(0)))

    @property
    def stderr(self) -> float | None:
        """Standard error over clusters by the delta method, exact for a mean.

        None means fewer than two clusters.
        """
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
