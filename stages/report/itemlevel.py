"""What the page shows beyond the headline.

Single items by certainty and worst group, guards, abstention, and further benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from fairgate.benchmarks import benchmark_of, items_of
from fairgate.metrics.comparison import Comparison, Interval, Slice, compare, every_slice, parts_of, worst_change, worst_level
from fairgate.metrics.flips import ABSTENTION, GUARDS, Itemwise, itemwise
from fairgate.metrics.items import benchmarks_of
from fairgate.metrics.statistic import Statistic

DIGITS = {"%": 1, "share": 3, "perplexity": 2, "words": 1}  # of a unit; else 3


@dataclass(frozen=True)
class RecipeValue:
    """A level and its change against the reference.

    `part` and `changed` name the group or subgroup that each belongs to; "" means the whole.
    """

    level: Interval
    part: str
    change: Interval | None
    changed: str


@dataclass(frozen=True)
class MetricRow:
    """One metric of a benchmark for every recipe.

    Args:
        kind: `guard`, `abstention` or `further`.
        note: Whether the row is about the whole or about its worst part.
        digits: Decimals to print.
        entries: The value of each recipe.
    """

    benchmark: str
    metric: str
    kind: str
    note: str
    digits: int
    entries: Mapping[str, RecipeValue]


def ideal(statistic: Statistic) -> str:
    """The unit and what is better, in words."""
    if statistic.neutral is not None:
        return f"{statistic.unit}, ideal {statistic.neutral:g}"
    return f"{statistic.unit}, {statistic.better} is better" if statistic.better else statistic.unit


def all_items(tables: Mapping[str, pa.Table], reference: str) -> tuple[Itemwise, ...]:
    """Every benchmark with answers, each recipe against the reference; benchmark by benchmark."""
    references = {name: items_of(tables[reference], name) for name in benchmarks_of(tables[reference])}
    rows = [
        item
        for recipe, table in tables.items()
        if recipe != reference
        for item in itemwise(recipe, ((items_of(table, name), items) for name, items in references.items()))
    ]
    return tuple(sorted(rows, key=lambda item: item.benchmark))


def metric_rows(
    tables: Mapping[str, pa.Table], reference: str, headline: Sequence[str], *, confidence: float, draws: int, seed: int
) -> tuple[MetricRow, ...]:
    """The rows beyond the headline.

    Guards and rates of abstaining of every benchmark, and every metric of the benchmarks that are
    not in the headline.
    """
    out: list[MetricRow] = []
    for benchmark in benchmarks_of(tables[reference]):
        items = {recipe: items_of(table, benchmark) for recipe, table in tables.items()}
        statistics = benchmark_of(benchmark).statistics
        shown = [cell for cell in every_slice(items[reference], statistics) if benchmark not in headline or cell.metric in GUARDS]
        if not shown:
            continue
        pairs = [(recipe, reference) for recipe in tables if recipe != reference]
        comparisons = compare(items, statistics, shown, pairs, alpha=(1 - confidence) / 2, draws=draws, seed=seed)
        for metric in dict.fromkeys(cell.metric for cell in shown):
            out += _rows_of(benchmark, metric, comparisons, list(tables), reference)
    return tuple(out)


def _rows_of(benchmark: str, metric: str, comparisons: Sequence[Comparison], recipes: Sequence[str], reference: str) -> Iterator[MetricRow]:
    statistic = benchmark_of(benchmark).statistics[metric]
    kind = "guard" if metric in GUARDS else "abstention" if metric in ABSTENTION else "further"
    whole = [c for c in comparisons if c.slice == Slice(metric)]
    n = whole[0].levels[reference].n
    for of, parts in {"": whole, **{f"worst {kind} of {len(some)}": some for kind, some in parts_of(comparisons, metric).items()}}.items():
        entries = {}
        for recipe in recipes:
            level = worst_level(parts, statistic, recipe)
            change = worst_change(parts, statistic, (recipe, reference)) if recipe != reference else None
            entries[recipe] = RecipeValue(
                level.levels[recipe],
                level.slice.label,
                change.differences[recipe, reference] if change else None,
                change.slice.label if change else "",
            )
        note = of or f"{ideal(statistic)}; n = {n:,}"
        yield MetricRow(benchmark, metric, kind, note, DIGITS.get(statistic.unit, 3), entries)
