"""Where in the weights the pair penalty sits.

Shares by matrix type, heat maps over blocks and types, and the largest channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fairgate.contracts.contributions import Contribution
from stages.report import figures
from stages.report.panels import Panel

LISTED = 10


@dataclass(frozen=True)
class Weights:
    """A table of penalties and its figures.

    A row is a label and the percentages of the unquantized model's penalty in each state: W, the
    shifted target, Q, and Q at alpha = 0.
    """

    rows: tuple[tuple[str, tuple[float | None, ...]], ...]
    panels: tuple[Panel, ...]


def weights(contributions: Sequence[Contribution]) -> Weights | None:
    """None where there is no table, or nothing to share out."""
    model = next((row for row in contributions if row.level == "model"), None)
    if model is None or model.weight <= 0:
        return None
    percent = 100 / model.weight
    rows = [(row.kind or "all", row) for row in contributions if row.level == "kind"] + [("all", model)]
    modules = [row for row in contributions if row.level == "module"]
    panels = [
        _heat(modules, "Share of the unquantized model's penalty, %", lambda row: row.weight * percent, 2),
        _heat(modules, "Left after quantization, % of the same matrix before", lambda row: 100 * row.quantized / (row.weight or 1), 3),
    ]
    if model.alpha_zero is not None:
        title = "Left after quantization, % of what plain GPTQ leaves"
        panels.append(_heat(modules, title, lambda row: 100 * row.quantized / (row.alpha_zero or 1), 3))
    panels += [_channels([row for row in contributions if row.level == level], level, percent) for level in ("input", "output")]
    table = tuple((label, tuple(None if value is None else value * percent for value in row.values())) for label, row in rows)
    return Weights(table, tuple(panels))


def _heat(modules: Sequence[Contribution], title: str, value: Callable[[Contribution], float], digits: int) -> Panel:
    blocks, kinds = sorted({row.block or 0 for row in modules}), list(dict.fromkeys(row.kind or "" for row in modules))
    cells = {(row.block or 0, row.kind or ""): value(row) for row in modules}
    return Panel(title, figures.heat_map(blocks, kinds, cells, digits=digits, title=title))


def _channels(rows: Sequence[Contribution], level: str, percent: float) -> Panel:
    """The largest channels of the model, before (W) and after (Q)."""
    listed = [row for row in rows if row.channel is not None]
    largest = sorted(listed, key=lambda row: -max(abs(row.weight), abs(row.quantized)))[:LISTED]
    bars = [
        (f"block {r.block} {r.kind}, {level} {r.channel}", (("W", 0, percent * r.weight), ("Q", 1, percent * r.quantized))) for r in largest
    ]
    title = f"Largest {level} channels, % of the unquantized model's penalty"
    return Panel(title, figures.signed_bars(bars, title=title))
