from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.report import figures
from stages.report.figures import Mark, Row


def test_texts_are_escaped_and_the_figure_is_well_formed() -> None:
    svg = figures.forest([Row("<script>", "n = 1 & 2", (Mark(0, 50.0, 40.0, 60.0),))], neutral=50, left="<", right=">", title='"<x>"')
    root = ElementTree.fromstring(svg)
    assert [text.text for text in root.iter("text")][-1] != "" and "<script>" in {text.text for text in root.iter("text")}
    assert root.get("aria-label") == '"<x>"'


def test_every_series_has_its_own_shape() -> None:
    shapes = {re.sub(r"class=\"[^\"]*\"", "", figures.icon(series)).split("<", 2)[2] for series in range(6)}
    assert len(shapes) == 6


def test_forest_places_marks_in_order_and_prints_their_intervals() -> None:
    marks = (Mark(0, 40.0, 35.0, 45.0), Mark(1, 60.0, 55.0, 65.0))
    root = ElementTree.fromstring(figures.forest([Row("race", "n = 9", marks)], neutral=50, left="", right="", title="t"))
    bars = [(float(line.get("x1", 0)), float(line.get("x2", 0))) for line in root.iter("line") if "bar" in line.get("class", "")]
    neutral = next(float(line.get("x1", 0)) for line in root.iter("line") if line.get("class") == "neutral")
    assert bars[0][0] < bars[0][1] < neutral < bars[1][0] < bars[1][1]
    assert {"40.0 [35.0, 45.0]", "60.0 [55.0, 65.0]"} <= {text.text for text in root.iter("text")}


def test_heat_map_leaves_absent_cells_out() -> None:
    root = ElementTree.fromstring(
        figures.heat_map([0, 1], ["q_proj", "k_proj"], {(0, "q_proj"): 1.0, (1, "k_proj"): 10.0}, digits=2, title="t")
    )
    opacities = [float(cell.get("fill-opacity", 0)) for cell in root.iter("rect")]
    assert len(opacities) == 2 and opacities[0] < opacities[1]


@pytest.mark.parametrize("points", [[(0.0, 1.0), (10.0, 3.0), (20.0, 2.0)], [(0.0, 1.0)]])
def test_a_curve_runs_to_the_right_and_rises_with_its_values(points: list[tuple[float, float]]) -> None:
    root = ElementTree.fromstring(figures.curve(points, 7, x_label="step", title="t"))
    (line,) = root.iter("polyline")
    places = [tuple(map(float, place.split(","))) for place in line.get("points", "").split()]
    assert [x for x, _ in places] == sorted(x for x, _ in places) and len(places) == len(points)
    assert sorted(places, key=lambda place: -place[1]) == [places[n] for n in sorted(range(len(points)), key=lambda n: points[n][1])]
    assert line.get("class") == "bar s1"  # of six styles


def test_flips_lengths_follow_the_shares() -> None:
    root = ElementTree.fromstring(figures.flips([("a", 1, 2, 10), ("b", 0, 0, 10)], left="l", right="r", title="t"))
    widths = [float(bar.get("width", 0)) for bar in root.iter("rect")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.02) and widths[2:] == [0, 0]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_few_and_enclose_the_data(low: float, width: float) -> None:
    ticks = figures.nice_ticks(low, low + width)
    slack = 1e-6 * max(1.0, abs(low), width)
    assert ticks[0] <= low + slack and ticks[-1] >= low + width - slack and 2 <= len(ticks) <= 9


@pytest.mark.parametrize(("value", "signed", "text"), [(-0.04, True, "0.0"), (-1.25, False, "−1.2"), (1234.5, True, "+1,234.5")])
def test_numbers_have_a_true_minus_and_no_negative_zero(value: float, signed: bool, text: str) -> None:
    assert figures.number_text(value, 1, signed=signed) == text
