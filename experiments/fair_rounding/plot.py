"""The Pareto plot: bias against perplexity and accuracy, every method and setting with its
intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

from experiments.fair_rounding.cells import Declaration
from experiments.fair_rounding.estimates import Study, Value, mean_ratio, plain, ratio

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
Point = tuple[Value, Value]


def plot(declaration: Declaration, study: Study, path: Path) -> None:
    """StereoSet's SS over the perplexity ratio and over the zero-shot ratio: all methods, and below
    the candidate's settings enlarged.

    A line joins the points that no other beats in both, by their values.
    """
    # -1: less is better.
    axes = {
        "perplexity / full precision": (-1, ratio((declaration.table.perplexity, None), "ppl")),
        "mean zero-shot accuracy / full precision": (1, mean_ratio(declaration.table.zero_shot, "zero-shot")),
    }
    ss = plain(("stereoset.ss", None), "ss")
    figure, rows = plt.subplots(2, 2, figsize=(13, 12), sharey="row", layout="constrained")
    for column, (title, (better, measure)) in enumerate(axes.items()):
        points: dict[str, Point] = {}
        if study.has(measure) and study.has(ss):
            points = {label: (study.of(measure, label), study.of(ss, label)) for label in study.labels}
        family = {
            family: [label for label in points if study.labels[label][0].entry in of] for family, of in declaration.table.plot.items()
        }
        shown = {label: points[label] for labels in family.values() for label in labels}
        near = next((labels for of, labels in family.items() if declaration.table.candidate in declaration.table.plot[of]), [])
        for row, panel in enumerate(rows[:, column]):
            panel.set_xlabel(title)
            panel.axhline(50, color="0.6", linewidth=0.8)
            panel.axvline(1, color="0.6", linewidth=0.8)
            best = front(shown, better)
            panel.plot(
                [shown[label][0].value for label in best], [shown[label][1].value for label in best], color="0.7", linewidth=1, zorder=0
            )
            for (name, labels), colour in zip(family.items(), COLOURS, strict=False):
                for number, label in enumerate(labels):
                    variant = study.labels[label][0].variant
                    _draw(panel, shown[label], colour, None if number else name, small=bool(variant))
                    if label in near if row else not variant:
                        (x, y), at = shown[label], {"textcoords": "offset points", "xytext": (5, 4), "fontsize": 8, "color": colour}
                        panel.annotate(variant or label, (x.value, y.value), **at)
            if row and near:
                _enlarge(panel, [shown[label] for label in near])
    for left in rows[:, 0]:
        left.set_ylabel("StereoSet SS, % (50 is neutral)")
    figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def front(points: Mapping[str, Point], better: int) -> list[str]:
    """Labels that no other one beats in both, from the best x on.

    Args:
        better: 1 where more of x is better, else -1.
    """
    best: list[str] = []
    for label in sorted(points, key=lambda label: (-better * points[label][0].value, abs(points[label][1].value - 50))):
        if not best or abs(points[label][1].value - 50) < abs(points[best[-1]][1].value - 50):
            best.append(label)
    return best


def _draw(panel: Any, point: Point, colour: tuple[float, ...], family: str | None, *, small: bool) -> None:
    x, y = point
    style = {"color": colour, "ecolor": (*colour, 0.35), "elinewidth": 0.8, "fmt": "o", "markersize": 4 if small else 7}
    panel.errorbar(x.value, y.value, xerr=_bars(x), yerr=_bars(y), label=family, **style)


def _enlarge(panel: Any, points: list[Point]) -> None:
    for part, limits in ((0, panel.set_xlim), (1, panel.set_ylim)):
        values = [point[part].value for point in points]
        margin = 0.35 * (max(values) - min(values)) or 0.1
        limits(min(values) - margin, max(values) + margin)


def _bars(value: Value) -> list[list[float]]:
    return [[max(0.0, value.value - value.low)], [max(0.0, value.high - value.value)]]
