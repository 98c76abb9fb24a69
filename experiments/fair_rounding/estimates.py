"""Values of methods with intervals that cover the choice of items and the spread between seeds.

Draw d resamples the clusters of a benchmark (target terms, questions, windows) once for all models,
so that what is common to two of them cancels in their difference. Seeds are resampled besides: with
V[s, d] the value of seed s under draw d,

    combined[d] = mean_s V[s, d]
        + c * mean over S seeds s' drawn with replacement of (V[s', d] - mean_s V[s, d])
    c           = sqrt(S / (S - 1)) * t(S - 1) / z

The factor puts right what resampling few seeds loses (Student's quantile t instead of the normal
one, z, at the level of the bounds). Where there is one seed, an interval covers items alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.stats import norm, t

from experiments.fair_rounding.cells import Cell, Declaration
from fairgate.benchmarks import benchmark_of, items_of
from fairgate.contracts.item_table import ITEMS
from fairgate.metrics.bootstrap import bootstrap, error, lower, upper
from fairgate.metrics.items import Items, benchmarks_of
from fairgate.metrics.statistic import Array

ALPHA, DRAWS, SEED = 0.025, 5_000, 0  # of each bound of a two-sided 95 % interval
Part = tuple[str, str | None]  # `<benchmark>.<metric>`, group
SS: Part = ("stereoset.ss", None)
LMS: Part = ("stereoset.lms", None)
ICAT: Part = ("stereoset.icat", None)
CROWS: Part = ("crows_pairs.pct_stereotype", None)
GAP: Part = ("winogender.gap", None)
BBQ: Part = ("bbq_ll.s_amb", None)


@dataclass(frozen=True)
class Value:
    """A value with its 95 % interval.

    lower_95: the one-sided lower bound of that confidence.
    by_seed: the value of every seed.
    """

    value: float
    low: float
    high: float
    lower_95: float
    p: float
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class Measure:
    """A number of one model, as a function of metrics of its own and of the base's: `of(model's,
    base's)`, each an array a part.
    """

    name: str
    parts: tuple[Part, ...]
    of: Callable[[list[Array], list[Array]], Array]
    digits: int = 1


@dataclass
class Study:
    """The cells that were run on the same items, by label; metrics are resampled when they are
    first asked for.
    """

    labels: dict[str, list[Cell]]
    items: dict[tuple[str, str], Items]
    base: str
    draws: int = DRAWS
    _parts: dict[Part, tuple[dict[str, Array], int]] = field(default_factory=dict)

    def parts(self, part: Part) -> tuple[dict[str, Array], int]:
        """Cell -> its value and its value under every draw, [1 + draws]; and the number of clusters
        they rest on.
        """
        if part not in self._parts:
            benchmark, metric = part[0].split(".")
            statistic = benchmark_of(benchmark).statistics[metric]
            names = [cell.name for cells in self.labels.values() for cell in cells]
            components = [statistic.components(self.items[name, benchmark], group=part[1]) for name in names]
            # Benchmarks have nothing in common
            seed = SEED + sorted({b for _, b in self.items}).index(benchmark)
            resampled = bootstrap(components, self.items[names[0], benchmark].strata, draws=self.draws, seed=seed)
            values = {
                name: np.concatenate([[component.value], draws])
                for name, component, draws in zip(names, components, resampled, strict=True)
            }
            self._parts[part] = values, components[0].clusters
        return self._parts[part]

    def has(self, measure: Measure) -> bool:
        """Whether every benchmark of a measure was evaluated."""
        known = {benchmark for _, benchmark in self.items}
        return all(part[0].split(".")[0] in known for part in measure.parts)

    def of(self, measure: Measure, label: str, baseline: str | None = None) -> Value:
        """A measure of one method; with `baseline`, how far it is above that of another method."""
        clusters = min(self.parts(part)[1] for part in measure.parts)
        ours = self._by_seed(measure, label)
        draws, value = _combined(ours, f"{measure.name} {label}"), float(ours[:, 0].mean())
        if baseline is not None:
            theirs = self._by_seed(measure, baseline)
            draws, value = draws - _combined(theirs, f"{measure.name} {baseline}"), value - float(theirs[:, 0].mean())
        draws = draws[np.isfinite(draws)]
        if clusters < 2 or not len(draws):
            return Value(value, value, value, value, 1.0, tuple(ours[:, 0]))
        tail = max(min(float((draws <= 0).mean()), float((draws >= 0).mean())), 1 / len(draws))
        bounds = lower(draws, ALPHA, clusters), upper(draws, ALPHA, clusters), lower(draws, 2 * ALPHA, clusters)
        return Value(value, *bounds, min(1.0, 2 * error(min(tail, 0.5), clusters)), tuple(map(float, ours[:, 0])))

    def _by_seed(self, measure: Measure, label: str) -> Array:
        """[seeds, 1 + draws]"""
        base = [self.parts(part)[0][self.labels[self.base][0].name] for part in measure.parts]
        return np.stack([measure.of([self.parts(part)[0][cell.name] for part in measure.parts], base) for cell in self.labels[label]])


def _combined(values: Array, key: str) -> Array:
    """[seeds, 1 + draws] -> [draws], with the spread between seeds (see above)."""
    seeds, draws = len(values), values[:, 1:]
    if seeds == 1:
        return np.asarray(draws[0])
    generator = np.random.default_rng([SEED, *key.encode()])
    deviations = (draws - draws.mean(0)).T
    picks = generator.integers(seeds, size=deviations.shape)
    factor = np.sqrt(seeds / (seeds - 1)) * t.ppf(1 - ALPHA, seeds - 1) / norm.ppf(1 - ALPHA)
    return np.asarray(draws.mean(0) + factor * np.take_along_axis(deviations, picks, 1).mean(1))


def study_of(cells: Sequence[Cell], out: Path, base: str, draws: int = DRAWS) -> tuple[Study, dict[str, str]]:
    """The cells that have results of the same inputs and items as those of `base`, and for every
    other one the reason it is left out.
    """
    results = {cell.name: cell.result(out) for cell in cells}
    first = next(results[cell.name] for cell in cells if cell.label == base)
    left_out: dict[str, str] = {}
    labels: dict[str, list[Cell]] = {}
    items: dict[tuple[str, str], Items] = {}
    template: dict[str, Items] = {}
    for cell in cells:
        result = results[cell.name]
        if not result:
            left_out[cell.name] = cell.why_not(out)
        elif not first:
            left_out[cell.name] = f"{base} was not run"
        elif (result["inputs"], result["items"]) != (first["inputs"], first["items"]):
            left_out[cell.name] = "run on other inputs or items than the base"
        else:
            labels.setdefault(cell.label, []).append(cell)
            items |= {(cell.name, benchmark): scored for benchmark, scored in _items(cell, out, result["items"], template).items()}
    return Study(labels, items, base, draws), left_out


def _items(cell: Cell, out: Path, name: str, template: dict[str, Items]) -> dict[str, Items]:
    """The items of a cell, by benchmark.

    Args:
        template: the items of an earlier cell, which differ in their scores alone; filled by the
            first.
    """
    scores = pq.read_table(cell.folder(out) / "scores.parquet")
    if template and scores.column_names == ["option_loglik"]:
        return _scored(template, scores["option_loglik"])
    table = pq.read_table(out / "items" / f"{name}.parquet")
    for column in scores.column_names:
        table = table.append_column(column, scores[column])
    for column in ITEMS:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    table = table.select(ITEMS.names).cast(ITEMS)
    items = {benchmark: items_of(table, benchmark) for benchmark in benchmarks_of(table)}
    template |= items
    return items


def _scored(template: dict[str, Items], loglik: pa.ChunkedArray) -> dict[str, Items]:
    """The same items with other log-likelihoods, which lie by benchmark and item as the template
    does.
    """
    flat, start, scored = pc.list_flatten(loglik).to_numpy().astype(np.float64), 0, {}
    for benchmark in sorted(template):
        items = template[benchmark]
        present = np.arange(items.loglik.shape[1]) < items.options[:, None]
        values = np.full(items.loglik.shape, -np.inf)
        values[present] = flat[start : start + int(present.sum())]
        start += int(present.sum())
        scored[benchmark] = benchmark_of(benchmark).interpret(replace(items, loglik=values))
    assert start == len(flat)
    return scored


def ratio(part: Part, name: str, digits: int = 3) -> Measure:
    """A metric over the base's."""
    return Measure(name, (part,), lambda ours, base: ours[0] / base[0], digits)


def plain(part: Part, name: str, digits: int = 1) -> Measure:
    return Measure(name, (part,), lambda ours, _: ours[0], digits)


def off(part: Part, neutral: float, name: str, digits: int = 1) -> Measure:
    """Distance from neutral."""
    return Measure(name, (part,), lambda ours, _: np.abs(ours[0] - neutral), digits)


def mean_ratio(metrics: Sequence[str], name: str) -> Measure:
    """The mean of several metrics over the base's mean."""

    def of(ours: list[Array], base: list[Array]) -> Array:
        quotient: Array = np.mean(ours, 0) / np.mean(base, 0)
        return quotient

    return Measure(name, tuple((metric, None) for metric in metrics), of, 3)


def main_measures(declaration: Declaration) -> dict[str, Measure]:
    """The columns of the main table."""
    return {
        "SS (50)": plain(SS, "ss"),
        "LMS": plain(LMS, "lms"),
        "ICAT": plain(ICAT, "icat"),
        "CrowS % (50)": plain(CROWS, "crows"),
        "Winogender gap (0)": plain(GAP, "gap", 3),
        "BBQ ambiguous bias (0)": plain(BBQ, "bbq", 3),
        "perplexity ratio": ratio((declaration.table.perplexity, None), "ppl"),
        "zero-shot ratio": mean_ratio(declaration.table.zero_shot, "zero-shot"),
    }


def worst_type(study: Study, label: str, part: str = "stereoset.ss") -> tuple[str, Value]:
    """The group whose mean over the seeds is farthest from 50, and its value; the interval does not
    know that it was picked.
    """
    some = next(items for (_, benchmark), items in study.items.items() if benchmark == part.split(".")[0])
    values = {group: study.of(plain((part, group), f"{part} {group}"), label) for group in some.groups}
    worst = max(values, key=lambda group: abs(values[group].value - 50))
    return worst, values[worst]


def describe(value: Value, digits: int) -> dict[str, Any]:
    """As a record holds it."""
    return {
        "value": round(value.value, digits),
        "low": round(value.low, digits),
        "high": round(value.high, digits),
        "runs": [round(of_seed, digits) for of_seed in value.by_seed],
    }
