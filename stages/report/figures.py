"""Inline SVG: pure functions from numbers to text, drawn 420 wide to stay readable on a phone.

Colors come from the page's style sheet through classes, so the figures follow light, dark and
print. Every series also has its own marker shape, and every interval its number: color is never the
only signal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 420
VALUES = 118  # right column with "value [low, high]"
PLOT = WIDTH - VALUES
LINE = 15
Axis = Callable[[float], float]  # from a value to where it lies


@dataclass(frozen=True)
class Mark:
    """One point with its interval; `series` is an index that sets shape and color."""

    series: int
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Row:
    """The marks of one group, under a label and a small note (its n)."""

    label: str
    note: str
    marks: tuple[Mark, ...]


def tag(name: str, content: str = "", **attributes: object) -> str:
    """One element with its attributes.

    `class_` and `font_size` become `class` and `font-size`; floats get at most two decimals.
    """
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(_attribute_text(value))}"' for key, value in attributes.items() if value is not None
    ]
    return f"<{name}{''.join(parts)}>{content}</{name}>" if content else f"<{name}{''.join(parts)}/>"


def forest(rows: Sequence[Row], *, neutral: float | None, left: str, right: str, title: str, digits: int = 1, signed: bool = False) -> str:
    """Forest plot: one line a mark in each row, and a vertical line at `neutral`.

    What each direction means stands above the plot.
    """
    reach = [x for row in rows for m in row.marks for x in (m.value, m.low, m.high) if x is not None]
    reach += [] if neutral is None else [neutral]
    ticks = nice_ticks(min(reach), max(reach))
    low, high = ticks[0], ticks[-1]

    def x(value: float) -> float:
        return 18 + (value - low) / (high - low) * (PLOT - 38)

    top = 22
    stripes: list[str] = []  # below the grid
    body: list[str] = []
    y = float(top)
    for number, row in enumerate(rows):
        height = 18 + LINE * len(row.marks) + 5
        if number % 2 == 0:
            stripes.append(tag("rect", x=0, y=y, width=WIDTH, height=height, class_="stripe"))
        body.append(_label(6, y + 13, row.label, class_="strong"))
        body.append(_label(WIDTH - 6, y + 13, row.note, class_="faint", text_anchor="end"))
        for at, mark in enumerate(row.marks):
            middle = y + 18 + LINE * (at + 0.5) - 2
            body.append(_interval(x, mark, middle))
            body.append(_label(WIDTH - 6, middle + 4, _value_text(mark, digits, signed), class_="number", text_anchor="end"))
        y += height
    grid = [tag("line", x1=x(t), x2=x(t), y1=top, y2=y, class_="grid") for t in ticks]
    grid += [_label(x(t), y + 14, number_text(t, _tick_digits(ticks), signed=signed), class_="faint", text_anchor="middle") for t in ticks]
    if neutral is not None:
        grid.append(tag("line", x1=x(neutral), x2=x(neutral), y1=top - 4, y2=y, class_="neutral"))
    head = [
        _label(0, 12, f"← {left}" if left else "", class_="faint"),
        _label(PLOT - 8, 12, f"{right} →" if right else "", class_="faint", text_anchor="end"),
    ]
    return _svg(WIDTH, y + 20, title, [*stripes, *grid, *head, *body])


def bullet(harm: float | None, low: float | None, high: float | None, margin: float, *, reach: float, title: str) -> str:
    """One line of the verdict: the interval of its harm against zero and the margin.

    The region beyond the margin is shaded. `reach` is half the width in the harm's unit, above 0.
    """
    width, height, middle = 150, 26, 13.0

    def x(value: float) -> float:
        return width / 2 + max(-1.0, min(1.0, value / reach)) * (width / 2 - 8)

    parts = [tag("rect", x=x(margin), y=2, width=width - x(margin), height=height - 4, class_="beyond")]
    parts.append(tag("line", x1=x(0), x2=x(0), y1=2, y2=height - 2, class_="neutral"))
    parts.append(tag("line", x1=x(margin), x2=x(margin), y1=1, y2=height - 1, class_="limit"))
    if low is not None and high is not None:
        parts.append(tag("line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_="bar s1"))
        parts += [tag("line", x1=x(end), x2=x(end), y1=middle - 4, y2=middle + 4, class_="bar s1") for end in (low, high)]
    if harm is not None:
        parts.append(_shape(1, x(harm), middle))
    return _svg(width, height, title, parts, class_="bullet")


def scatter(marks: Sequence[tuple[Mark, Mark]], *, x_label: str, y_label: str, title: str) -> str:
    """One point a series with both intervals: (horizontal mark, vertical mark)."""
    across = [v for m, _ in marks for v in (m.value, m.low, m.high) if v is not None]
    upward = [v for _, m in marks for v in (m.value, m.low, m.high) if v is not None]
    x, y, parts = _axes(across, upward, 300, x_label, y_label)
    for h, v in marks:
        if h.low is not None and h.high is not None:
            parts.append(tag("line", x1=x(h.low), x2=x(h.high), y1=y(v.value), y2=y(v.value), class_=f"bar thin s{h.series % 6}"))
        if v.low is not None and v.high is not None:
            parts.append(tag("line", x1=x(h.value), x2=x(h.value), y1=y(v.low), y2=y(v.high), class_=f"bar thin s{h.series % 6}"))
        parts.append(_shape(h.series, x(h.value), y(v.value), size=6))
    return _svg(WIDTH, 300, title, parts)


def curve(points: Sequence[tuple[float, float]], series: int, *, x_label: str, title: str) -> str:
    """One line through (across, upward), with a mark at its end."""
    across, upward = ([point[at] for point in points] for at in (0, 1))
    x, y, parts = _axes(across, [0.0, *upward], 190, x_label, "")
    parts.append(tag("polyline", points=" ".join(f"{x(a):.1f},{y(u):.1f}" for a, u in points), class_=f"bar s{series % 6}"))
    parts.append(_shape(series, x(across[-1]), y(upward[-1])))
    return _svg(WIDTH, 190, title, parts)


def _axes(across: Sequence[float], upward: Sequence[float], height: int, x_label: str, y_label: str) -> tuple[Axis, Axis, list[str]]:
    """A grid around all values: the two axes, and what is drawn so far."""
    left, bottom, top, right = 46, 40, 14, 14
    tx, ty = nice_ticks(min(across), max(across)), nice_ticks(min(upward), max(upward))

    def x(value: float) -> float:
        return left + (value - tx[0]) / (tx[-1] - tx[0]) * (WIDTH - left - right)

    def y(value: float) -> float:
        return height - bottom - (value - ty[0]) / (ty[-1] - ty[0]) * (height - top - bottom)

    parts = [tag("line", x1=x(t), x2=x(t), y1=top, y2=height - bottom, class_="grid") for t in tx]
    parts += [tag("line", x1=left, x2=WIDTH - right, y1=y(t), y2=y(t), class_="grid") for t in ty]
    parts += [_label(x(t), height - bottom + 15, number_text(t, _tick_digits(tx)), class_="faint", text_anchor="middle") for t in tx]
    parts += [_label(left - 6, y(t) + 4, number_text(t, _tick_digits(ty)), class_="faint", text_anchor="end") for t in ty]
    parts.append(_label((left + WIDTH - right) / 2, height - 6, x_label, class_="faint", text_anchor="middle"))
    parts.append(_label(left + 4, top + 10, y_label, class_="faint"))
    return x, y, parts


def flips(rows: Sequence[tuple[str, int, int, int]], *, left: str, right: str, title: str) -> str:
    """Diverging bars, one a row: (label, count to the left, count to the right, items compared)."""
    most = max((max(a, b) / n for _, a, b, n in rows if n), default=0.0) or 1.0
    middle, reach, y = WIDTH / 2, WIDTH / 2 - 84, 24.0
    parts = [_label(middle - 8, 12, f"← {left}", class_="faint", text_anchor="end"), _label(middle + 8, 12, f"{right} →", class_="faint")]
    for label, a, b, n in rows:
        parts.append(_label(0, y + 12, label, class_="strong"))
        parts.append(_label(WIDTH, y + 12, f"n = {n}", class_="faint", text_anchor="end"))
        for count, sign, kind in ((a, -1, "calm"), (b, 1, "alarm")):
            share = count / n if n else 0.0
            length = share / most * reach
            parts.append(tag("rect", x=middle - length if sign < 0 else middle, y=y + 18, width=length, height=14, class_=f"block {kind}"))
            text = f"{count} ({100 * share:.1f} %)"
            parts.append(_label(middle + sign * (length + 5), y + 29, text, class_="number", text_anchor="end" if sign < 0 else "start"))
        y += 42
    parts.append(tag("line", x1=middle, x2=middle, y1=18, y2=y, class_="axis"))
    return _svg(WIDTH, y + 4, title, parts)


def sizes(rows: Sequence[tuple[str, int, float]], *, unit: str, title: str) -> str:
    """Horizontal bars with their numbers: (label, series, value)."""
    most = max((value for _, _, value in rows), default=1.0) or 1.0
    parts, y = [], 4.0
    for label, at, value in rows:
        parts.append(_label(0, y + 12, label, class_="strong"))
        parts.append(tag("rect", x=0, y=y + 17, width=max(value / most * (WIDTH - 100), 1), height=12, rx=2, class_=f"block s{at % 6}"))
        parts.append(_label(max(value / most * (WIDTH - 100), 1) + 8, y + 27, f"{value:,.1f} {unit}", class_="number"))
        y += 38
    return _svg(WIDTH, y, title, parts)


def signed_bars(rows: Sequence[tuple[str, Sequence[tuple[str, int, float]]]], *, title: str) -> str:
    """Bars from a common zero, to the left where negative.

    A row is a label and its bars (name, series, value).
    """
    values = [value for _, bars in rows for _, _, value in bars]
    low, high = min([0.0, *values]), max([0.0, *values])
    left, right = 22, 62
    scale = (WIDTH - left - right) / (high - low or 1.0)
    zero, y = left - low * scale, 4.0
    parts = []
    for label, bars in rows:
        parts.append(_label(0, y + 11, label, class_="strong"))
        for at, (name, series, value) in enumerate(bars):
            top = y + 16 + LINE * at
            parts.append(_label(0, top + 10, name, class_="faint"))
            parts.append(
                tag(
                    "rect",
                    x=zero + min(value, 0) * scale,
                    y=top + 1,
                    width=max(abs(value) * scale, 1),
                    height=10,
                    class_=f"block s{series}",
                )
            )
            end = zero + max(value, 0) * scale
            parts.append(_label(end + 5, top + 10, compact(value, 3), class_="number"))
        parts.append(tag("line", x1=zero, x2=zero, y1=y + 15, y2=y + 16 + LINE * len(bars), class_="axis"))
        y += 20 + LINE * len(bars)
    return _svg(WIDTH, y + 2, title, parts)


def heat_map(blocks: Sequence[int], kinds: Sequence[str], values: Mapping[tuple[int, str], float], *, digits: int, title: str) -> str:
    """Blocks downward, matrix kinds across; each field prints its number.

    The shade follows the logarithm of the number.
    """
    left, row_height, top = 34, 15, 22
    width = (WIDTH - left) / max(len(kinds), 1)
    # The shade spans the middle 90 %: one tiny or huge module would leave all others in one shade.
    logs = sorted(math.log(v) for v in values.values() if v > 0) or [0.0]
    floor, most = logs[len(logs) // 20], logs[-1 - len(logs) // 20]
    parts = [
        _label(left + width * (at + 0.5), 14, kind.removesuffix("_proj"), class_="faint", text_anchor="middle")
        for at, kind in enumerate(kinds)
    ]
    for down, block in enumerate(blocks):
        y = top + down * row_height
        parts.append(_label(left - 6, y + 11, str(block), class_="faint", text_anchor="end"))
        for at, kind in enumerate(kinds):
            value = values.get((block, kind))
            x = left + at * width
            if value is None:
                parts.append(_label(x + width / 2, y + 11, "·", class_="faint", text_anchor="middle"))
                continue
            share = (math.log(value) - floor) / (most - floor or 1) if value > 0 else 0.0
            share = max(0.0, min(1.0, share))
            parts.append(tag("rect", x=x, y=y, width=width - 1, height=row_height - 1, class_="heat", fill_opacity=0.04 + 0.6 * share))
            parts.append(_label(x + width / 2, y + 11, compact(value, digits), class_="cell", text_anchor="middle"))
    return _svg(WIDTH, top + len(blocks) * row_height + 2, title, parts)


def icon(series: int) -> str:
    """The marker of one series, for legends and tables (decorative: the name stands beside it)."""
    shape = _shape(series, 7, 7)
    return tag("svg", shape, viewBox="0 0 14 14", width=14, height=14, class_="icon", aria_hidden="true")


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that enclose [low, high]."""
    if high - low < 1e-9:
        low, high = low - 1, high + 1
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * at for at in range(first, last + 1)]


def number_text(value: float, digits: int, *, signed: bool = False) -> str:
    """A number with a true minus sign; `-0.0` becomes `0.0`."""
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if not float(text.replace(",", "")):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def compact(value: float, digits: int) -> str:
    """A number that fits a cell: `digits` significant figures, large ones with k."""
    if abs(value) >= 1000:
        return f"{value / 1000:.{digits}g}k" if value < 1e6 else f"{value:.0e}".replace("e+0", "e")
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("-", "−")


def _tick_digits(ticks: Sequence[float]) -> int:
    step = ticks[1] - ticks[0]
    return next((d for d in range(5) if abs(step - round(step, d)) < 1e-9), 5)


def _attribute_text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _label(x: float, y: float, text: str, **attributes: object) -> str:
    return tag("text", escape(text), x=float(x), y=float(y), **attributes) if text else ""


def _value_text(mark: Mark, digits: int, signed: bool) -> str:
    text = number_text(mark.value, digits, signed=signed)
    if mark.low is None or mark.high is None:
        return text
    return f"{text} [{number_text(mark.low, digits)}, {number_text(mark.high, digits)}]"


def _interval(x: Axis, mark: Mark, y: float) -> str:
    at = x(mark.value)
    line = ""
    if mark.low is not None and mark.high is not None:
        line = tag("line", x1=x(mark.low), x2=x(mark.high), y1=y, y2=y, class_=f"bar s{mark.series % 6}")
    return line + _shape(mark.series, at, y)


def _shape(series: int, x: float, y: float, size: float = 4.5) -> str:
    """Circle, diamond, square, triangle, inverted triangle or cross: a signal beside color."""
    s, style = size, f"mark s{series % 6}"
    match series % 6:
        case 0:
            return tag("circle", cx=x, cy=y, r=s, class_=style)
        case 1:
            corners = [(x, y - s * 1.3), (x + s * 1.3, y), (x, y + s * 1.3), (x - s * 1.3, y)]
        case 2:
            corners = [(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]
        case 3:
            corners = [(x, y - s * 1.2), (x + s * 1.2, y + s), (x - s * 1.2, y + s)]
        case 4:
            corners = [(x, y + s * 1.2), (x + s * 1.2, y - s), (x - s * 1.2, y - s)]
        case _:
            strokes = f"M{x - s:.1f} {y - s:.1f}l{2 * s:.1f} {2 * s:.1f}M{x - s:.1f} {y + s:.1f}l{2 * s:.1f} {-2 * s:.1f}"
            return tag("path", d=strokes, class_=f"bar s{series % 6}")
    return tag("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in corners), class_=style)


def _svg(width: float, height: float, title: str, parts: Sequence[str], *, class_: str = "figure") -> str:
    content = tag("title", escape(title)) + "".join(parts)
    return tag("svg", content, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title, class_=class_)
