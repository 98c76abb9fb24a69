from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fairgate.contracts.contributions import FILE, Contribution, read_contributions
from fairgate.support.errors import BadRecord
from fairgate.support.files import read_json, write_json
from stages.report.stage import report as write_report
from stages.report.weights import LISTED, weights
from tests.fake_run import KINDS, make_run


def test_shares_of_the_types_add_up_to_the_model(run: Path) -> None:
    table = weights(read_contributions(run / "data/models/fair_gptq" / FILE))
    assert table is not None
    *kinds, (name, whole) = table.rows
    assert [kind for kind, _ in kinds] == list(KINDS) and name == "all"
    assert whole[0] == pytest.approx(100)
    for state in range(4):
        assert sum(shares[state] or 0 for _, shares in kinds) == pytest.approx(whole[state])


def test_figures_show_every_matrix_and_the_largest_channels(run: Path) -> None:
    rows = read_contributions(run / "data/models/fair_gptq" / FILE)
    table = weights(rows)
    assert table is not None
    share, left, plain, inputs, outputs = (ElementTree.fromstring(panel.svg) for panel in table.panels)
    for figure in (share, left, plain):
        assert len([cell for cell in figure.iter("rect") if cell.get("class") == "heat"]) == 6 * len(KINDS)
    for level, figure in (("input", inputs), ("output", outputs)):
        listed = [row for row in rows if row.level == level and row.channel is not None]
        largest = max(listed, key=lambda row: max(abs(row.weight), abs(row.quantized)))
        labels = [text.text or "" for text in figure.iter("text") if text.get("class") == "strong"]
        assert labels[0] == f"block {largest.block} {largest.kind}, {level} {largest.channel}" and len(labels) == LISTED


def test_a_negative_channel_lies_left_of_zero() -> None:
    def row(level: str, channel: int | None, weight: float) -> Contribution:
        names: dict[str, Any] = {"level": level, "block": 0, "kind": "q_proj", "module": "m", "channel": channel}
        return Contribution.model_validate({**names, "weight": weight, "target": weight, "quantized": weight / 2})

    table = weights(
        [row("model", None, 2.0), row("kind", None, 2.0), row("module", None, 2.0), row("input", 3, 4.0), row("input", 9, -2.0)]
    )
    assert table is not None
    figure = ElementTree.fromstring(next(panel.svg for panel in table.panels if "input" in panel.title))
    zero = next(float(line.get("x1", 0)) for line in figure.iter("line"))
    bars = [(float(bar.get("x", 0)), float(bar.get("width", 0))) for bar in figure.iter("rect")]
    assert [x == pytest.approx(zero, abs=0.02) for x, _ in bars] == [True, True, False, False]
    assert bars[2][0] + bars[2][1] == pytest.approx(zero, abs=0.02)
    assert bars[0][1] == pytest.approx(2 * bars[2][1], abs=0.02)
    assert {"200", "\u2212100"} <= {text.text for text in figure.iter("text")}


def test_a_run_without_the_table_has_no_such_part(tmp_path: Path) -> None:
    recipes = {"base": {"method": "none"}, "rtn": {"method": "rtn", "bits": 4, "group_size": 64, "symmetric": True}}
    folder = make_run(tmp_path, recipes=recipes, items=8)
    write_report(folder, folder / "params.yaml")
    assert "Where in the weights" not in (folder / "data/reports/index.html").read_text()


def test_page_has_the_part_and_its_numbers(run: Path) -> None:
    page = (run / "data/reports/index.html").read_text()
    part = page[page.index("Where in the weights") : page.index("All 42 modules")]
    assert part.count("<svg") == 5
    assert re.search(r'<th scope="row">all</th><td class="r">100.00</td>', part)


def test_a_table_that_does_not_add_up_is_refused(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    path = folder / "data/models/fair_gptq" / FILE
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")  # the last module's outputs lack one row
    with pytest.raises(BadRecord, match=r"down_proj, outputs do not add up[\s\S]*dvc repro quantize"):
        write_report(folder, folder / "params.yaml")


def test_the_ladder_of_a_damped_module_is_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path, items=8)
    path = folder / "data/models/fair_gptq/quantization.json"
    record = read_json(path)
    record["modules"][5]["damping_tried"] = {"T": [0.01, 0.0125, 0.015, 0.0175, 0.02]}
    write_json(path, record)
    write_report(folder, folder / "params.yaml")
    assert "T: 5 tries up to 0.020" in (folder / "data/reports/index.html").read_text()
