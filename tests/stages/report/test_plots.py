from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from fairgate.support.files import read_json
from stages.report.plots import COLUMNS
from tests.fake_run import KINDS, RECIPES

PIPELINE = Path(__file__).parents[3] / "dvc.yaml"


def rows_of(run: Path, name: str) -> list[dict[str, str]]:
    with (run / "data/reports/plots" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_plots_of_the_pipeline_name_columns_that_exist(run: Path) -> None:
    plots = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["plots"]
    named = set()
    for plot in plots:
        (settings,) = plot.values()
        for axis in ("x", "y"):
            for path, columns in settings[axis].items():
                named.add(Path(path).name)
                found = rows_of(run, Path(path).name)[0]
                assert {columns} <= set(found) if isinstance(columns, str) else set(columns) <= set(found)
        assert (PIPELINE.parent / ".dvc" / "plots" / f"{settings['template']}.json").is_file()
    assert named == set(COLUMNS)


def test_rows_are_complete(run: Path) -> None:
    assert {row["recipe"] for row in rows_of(run, "bias_by_group.csv")} == set(RECIPES)
    assert {row["recipe"] for row in rows_of(run, "bias_change.csv")} == set(RECIPES) - {"base"}
    assert len(rows_of(run, "modules.csv")) == 3 * 6 * len(KINDS)
    for row in rows_of(run, "bias_by_group.csv"):
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])


def test_metrics_of_the_pipeline_are_those_of_the_evaluation(run: Path) -> None:
    paths = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["metrics"]
    assert {Path(path).stem for path in paths} == set(RECIPES)
    for path in paths:
        shown, measured = read_json(run / path), read_json(run / "data/evaluation" / Path(path).stem / "metrics.json")
        assert shown.pop("size.mib") > 0
        assert shown == {name: pytest.approx(measured[name], abs=1e-4) for name in shown} and len(shown) == 8
