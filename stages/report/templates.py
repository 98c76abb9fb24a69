"""The templates: the page (HTML, which escapes every value), its script, and the model card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fairgate.metrics.flips import ABSTENTION, GUARDS
from stages.report.figures import number_text
from stages.report.results import TITLES
from stages.report.words import count, figure_text


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template of that file name with its values; a name without a value is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "num": _number_or_dash,
        "figure": figure_text,
        "percent": lambda share: "–" if share is None else f"{100 * share:.1f} %",
        "pvalue": lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}",
        "short": lambda digest: str(digest)[:12],
        "count_of": count,
        "metric_of": lambda name: GUARDS.get(name) or ABSTENTION.get(name) or name,
        "title_of": lambda name: TITLES.get(name, name),
        "mib": lambda size: f"{size:,.1f}",
        "inline": inline,
    }
    return environment.get_template(template).render(values)


def inline(text: str) -> str:
    """Text that cannot become markup, a table column or a heading of a Markdown page."""
    text = text.replace("\n", " ").replace("&", "&amp;")
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")


def _number_or_dash(value: float, digits: int = 1, signed: bool = False) -> str:
    return "–" if math.isnan(value) else number_text(value, digits, signed=signed)
