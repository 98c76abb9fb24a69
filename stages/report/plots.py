"""Tables for `dvc plots`; the section `plots` of dvc.yaml names their columns."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from stages.report.data import Report
from stages.report.results import BIAS, SUMMARY, TITLES

Value = str | int | float | bool | None
COLUMNS = {
    "bias_by_group.csv": ("recipe", "benchmark", "group", "value", "low", "high", "n"),
    "bias_change.csv": ("recipe", "benchmark", "group", "value", "low", "high", "n"),
    "results.csv": ("recipe", "measure", "value", "low", "high", "n"),
    "tradeoff.csv": ("recipe", "ss_distance", "perplexity", "lms", "mib"),
    "flips.csv": ("recipe", "benchmark", "direction", "percent", "items"),
    "modules.csv": ("recipe", "module", "block", "kind", "status", "weight_change", "loss", "bias_ratio", "damping"),
}


def write(report: Report, folder: Path) -> None:
    """Write every file of COLUMNS into `folder`; numbers have six significant figures."""
    rows = {
        "bias_by_group.csv": _groups(report, changes=False),
        "bias_change.csv": _groups(report, changes=True),
        "results.csv": _results(report),
        "tradeoff.csv": _tradeoff(report),
        "flips.csv": _flips(report),
        "modules.csv": _modules(report),
    }
    for name, columns in COLUMNS.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([_csv_value(value) for value in row] for row in rows[name])


def headline(report: Report) -> dict[str, dict[str, float]]:
    """The few numbers of each recipe that `dvc metrics show` puts side by side.

    They are those of metrics.json, rounded, with the size of the weights.
    """
    out: dict[str, dict[str, float]] = {}
    for name in report.names:
        metrics, mib = report.recipe(name).metrics, report.mib(name)
        out[name] = {m.key: round(metrics[m.key], 4) for m in SUMMARY if m.key in metrics}
        if mib is not None:
            out[name]["size.mib"] = round(mib, 1)
    return out


def _groups(report: Report, *, changes: bool) -> Iterable[tuple[Value, ...]]:
    for result in report.results:
        if result.metric in BIAS:
            for name, e in (result.changes if changes else result.levels).items():
                yield name, TITLES[result.metric.benchmark], result.group or "all", e.value, e.low, e.high, e.n


def _results(report: Report) -> Iterable[tuple[Value, ...]]:
    for metric in SUMMARY:
        result = report.result(metric.key)
        for name, e in result.levels.items() if result else ():
            yield name, metric.name, e.value, e.low, e.high, e.n


def _tradeoff(report: Report) -> Iterable[tuple[Value, ...]]:
    ss, ppl, lms = (report.result(metric) for metric in ("stereoset.ss", "perplexity.ppl", "stereoset.lms"))
    for name in report.names:
        yield (
            name,
            abs(ss.levels[name].value - 50) if ss else None,
            ppl.levels[name].value if ppl else None,
            lms.levels[name].value if lms else None,
            report.mib(name),
        )


def _flips(report: Report) -> Iterable[tuple[Value, ...]]:
    for f in report.flips:
        worse, better = ("newly stereotyped", "stereotype dropped") if f.kind == "bias" else ("newly wrong", "newly right")
        yield f.recipe, TITLES[f.benchmark], worse, 100 * f.worse / f.n, f.worse
        yield f.recipe, TITLES[f.benchmark], better, 100 * f.better / f.n, f.better


def _modules(report: Report) -> Iterable[tuple[Value, ...]]:
    for recipe in report.recipes:
        for m in recipe.quantization.modules if recipe.quantization else ():
            yield recipe.name, m.name, m.block, m.kind, m.status.value, m.weight_change, m.loss, m.bias_ratio, m.damping


def _csv_value(value: Value) -> Value:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
