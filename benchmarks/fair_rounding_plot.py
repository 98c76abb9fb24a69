"""The Pareto plot: bias against perplexity and accuracy, every method and setting with its intervals."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from benchmarks.fair_rounding_cells import Declaration
from benchmarks.fair_rounding_estimates import Study, Value, mean_ratio, plain, ratio

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]


def plot(declaration: Declaration, found: Study, path: Path) -> None:
    """Two panels: StereoSet's SS over the perplexity ratio and over the zero-shot ratio; a line joins the settings of one method."""
    axes = {
        "perplexity / full precision": ratio((declaration.table.perplexity, None), "ppl"),
        "mean zero-shot accuracy / full precision": mean_ratio(declaration.table.zero_shot, "zero-shot"),
    }
    ss = plain(("stereoset.ss", None), "ss")
    figure, panels = plt.subplots(1, 2, figsize=(13, 6), sharey=True, layout="constrained")
    for panel, (title, measure) in zip(panels, axes.items(), strict=True):
        panel.set_xlabel(title)
        panel.axhline(50, color="0.6", linewidth=0.8)
        panel.axvline(1, color="0.6", linewidth=0.8)
        if not (found.has(measure) and found.has(ss)):
            continue
        for (family, entries), colour in zip(declaration.table.plot.items(), COLOURS, strict=False):
            cells = {label: cells[0] for label, cells in found.labels.items() if cells[0].entry in entries}
            points = {label: (found.of(measure, label), found.of(ss, label)) for label in cells}
            line = [(x.value, y.value) for label, (x, y) in points.items() if cells[label].variant]
            panel.plot(*zip(*line, strict=True), color=colour, linewidth=0.8, linestyle=":") if line else None
            for number, (label, (x, y)) in enumerate(points.items()):
                style = {
                    "color": colour,
                    "ecolor": (*colour, 0.35),
                    "elinewidth": 0.8,
                    "fmt": "o",
                    "markersize": 4 if cells[label].variant else 7,
                }
                panel.errorbar(x.value, y.value, xerr=_bars(x), yerr=_bars(y), label=None if number else family, **style)
                name = cells[label].variant or label
                panel.annotate(name, (x.value, y.value), textcoords="offset points", xytext=(4, 4), fontsize=7, color=colour)
    panels[0].set_ylabel("StereoSet SS, % (50 is neutral)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _bars(value: Value) -> list[list[float]]:
    return [[max(0.0, value.value - value.low)], [max(0.0, value.high - value.value)]]
