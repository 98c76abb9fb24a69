"""The page's figures: which numbers of the report go into which plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairgate.benchmarks import METRICS
from fairgate.contracts.records import Line, ModuleRow
from fairgate.metrics.comparison import Interval
from stages.report import figures
from stages.report.data import EvaluatedRecipe, Report
from stages.report.figures import Mark, Row
from stages.report.results import ABILITY, BIAS, TITLES, Result
from stages.report.words import TERMS, figure_text


@dataclass(frozen=True)
class Panel:
    """A figure under its caption.

    `svg` is markup made by `figures` alone, which escapes every text.
    """

    title: str
    svg: str


@dataclass(frozen=True)
class BiasPanel:
    """One bias benchmark: a figure of its scores and one of their paired changes.

    `rows` holds the same as (label, recipe, level, change).
    """

    title: str
    level: str
    change: str
    rows: tuple[tuple[str, str, Interval, Interval | None], ...]


def tradeoff(report: Report) -> list[Panel]:
    """Distance from neutral against perplexity, one point a recipe, for each bias benchmark."""
    panels = []
    ability = report.result("perplexity.ppl")
    for metric in BIAS:
        score = report.result(metric.key)
        if score and ability:
            points = [(_distance(report, name, score.levels[name]), _mark(report, name, ability.levels[name])) for name in report.names]
            title = f"{TITLES[metric.benchmark]}: bias against perplexity"
            across = "distance from 50, points (0 is neutral)"
            panels.append(Panel(title, figures.scatter(points, x_label=across, y_label="perplexity", title=title)))
    return panels


def _distance(report: Report, name: str, score: Interval) -> Mark:
    """|score - 50| with the interval that the score's own interval implies."""
    low = high = None
    if score.low is not None and score.high is not None:
        ends = sorted((abs(score.low - 50), abs(score.high - 50)))
        low, high = (0.0 if score.low < 50 < score.high else ends[0]), ends[1]
    return Mark(report.series(name), abs(score.value - 50), low, high)


def bullet(line: Line) -> str:
    """The harm of one line of the verdict against zero and its margin, on its own scale."""
    ends = [abs(value) for value in (line.harm, line.low, line.high, line.margin) if value is not None]
    bounds = f"{figure_text(line.low, True)} to {figure_text(line.high, True)}"
    title = f"harm {figure_text(line.harm, True)}, bounds {bounds}, margin {figure_text(line.margin)}"
    return figures.bullet(line.harm, line.low, line.high, line.margin, reach=1.1 * max(ends) or 1.0, title=title)


def bias(report: Report, key: str) -> BiasPanel | None:
    """Scores and paired changes of one two-sided metric, overall and per group.

    None means that it was not measured.
    """
    slices = [("all groups" if result.group is None else result.group, result) for result in report.results if result.metric.key == key]
    if not slices:
        return None
    title = f"{TITLES[slices[0][1].metric.benchmark]}: {METRICS[key].unit} of pairs with the stereotype preferred"
    level = figures.forest(
        _forest_rows(report, [(label, result.levels) for label, result in slices]),
        neutral=METRICS[key].neutral,
        left="anti-stereotype",
        right="stereotype",
        title=f"{title}, per group",
    )
    change = figures.forest(
        _forest_rows(report, [(label, result.changes) for label, result in slices]),
        neutral=0,
        left="less biased",
        right="more biased",
        title=f"{title}, change of the distance from neutral",
        signed=True,
    )
    rows = tuple((label, name, result.levels[name], result.changes.get(name)) for label, result in slices for name in report.names)
    return BiasPanel(title, level, change, rows)


def flips(report: Report) -> list[Panel]:
    """Flips of the candidate in both directions, bias and right or wrong."""
    panels = []
    for kind, left, right in (("bias", "stereotype dropped", "newly stereotyped"), ("right or wrong", "newly right", "newly wrong")):
        rows = [(TITLES[f.benchmark], f.better, f.worse, f.n) for f in report.flips if f.recipe == report.candidate and f.kind == kind]
        if rows:
            title = f"{report.candidate} against {report.reference}: {kind}"
            panels.append(Panel(title, figures.flips(rows, left=left, right=right, title=title)))
    return panels


def ability(report: Report) -> list[Panel]:
    """Accuracy and its paired changes, perplexity, size."""
    panels = []
    scores = [result for metric in ABILITY if (result := report.result(metric.key))]
    if scores:
        levels = _forest_rows(report, [(_short_name(result), result.levels) for result in scores])
        changes = _forest_rows(report, [(_short_name(result), result.changes) for result in scores])
        title = f"Change against {report.reference}, points"
        panels.append(Panel("Score, %", figures.forest(levels, neutral=None, left="", right="better", title="Accuracy per recipe")))
        panels.append(Panel(title, figures.forest(changes, neutral=0, left="worse", right="better", title=title, signed=True)))
    perplexity = report.result("perplexity.ppl")
    if perplexity:
        title = f"Change of perplexity against {report.reference}"
        rows = _forest_rows(report, [("Held-out text", perplexity.changes)])
        panels.append(Panel(title, figures.forest(rows, neutral=0, left="better", right="worse", title=title, digits=2, signed=True)))
    sizes = [(name, report.series(name), mib) for name in report.names if (mib := report.mib(name)) is not None]
    if sizes:
        title = "Size of the weights"
        panels.append(Panel(title, figures.sizes(sizes, unit="MiB", title=title)))
    return panels


def health(recipe: EvaluatedRecipe) -> list[Panel]:
    """Heat maps over blocks and matrices.

    They show the weight change, and the bias ratio or, for a recipe without one, the loss.
    """
    if recipe.quantization is None:
        return []
    modules = recipe.quantization.modules
    changes = {(m.block, m.kind): 100 * m.weight_change for m in modules}
    ratios = {(m.block, m.kind): m.bias_ratio for m in modules if m.bias_ratio is not None}
    losses = {(m.block, m.kind): m.loss for m in modules if m.loss is not None}
    panels = [_heat(modules, "Weight change, ‖ΔW‖/‖W‖ in %", changes, 3)]
    if ratios:
        panels.append(_heat(modules, "Weight of the fairness term, trB/trH", ratios, 2))
    elif losses:
        panels.append(_heat(modules, "Loss", losses, 2))
    return panels


def learning(report: Report, recipe: EvaluatedRecipe) -> list[Panel]:
    """How each term of the loss went over the steps."""
    history = recipe.quantization.training.history if recipe.quantization and recipe.quantization.training else []
    panels = []
    for name, meaning in TERMS.items():
        if points := [(row["step"], row[name]) for row in history if name in row]:
            title = f"{name.capitalize()}: {meaning}"
            panels.append(Panel(title, figures.curve(points, report.series(recipe.name), x_label="step", title=title)))
    return panels


def _heat(modules: Sequence[ModuleRow], title: str, values: Mapping[tuple[int, str], float], digits: int) -> Panel:
    blocks, kinds = sorted({m.block for m in modules}), list(dict.fromkeys(m.kind for m in modules))
    return Panel(title, figures.heat_map(blocks, kinds, values, digits=digits, title=title))


def _forest_rows(report: Report, labelled: Sequence[tuple[str, Mapping[str, Interval]]]) -> list[Row]:
    rows = []
    for label, estimates in labelled:
        marks = tuple(_mark(report, name, estimates[name]) for name in report.names if name in estimates)
        n = max((estimate.n for estimate in estimates.values()), default=0)
        rows.append(Row(label, f"n = {n:,}", marks))
    return rows


def _mark(report: Report, name: str, estimate: Interval) -> Mark:
    return Mark(report.series(name), estimate.value, estimate.low, estimate.high)


def _short_name(result: Result) -> str:
    return result.metric.name.removesuffix(", %")
