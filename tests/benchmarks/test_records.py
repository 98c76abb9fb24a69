"""Every committed figure follows the one schema."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.records import Measurement, Records, measurement, merge, read
from tests.project import REPOSITORY

RESULTS = sorted((REPOSITORY / "benchmarks/results").glob("*.json"))
ROW = {"name": "x_s", "value": 1.0, "unit": "s", "machine": "m", "versions": {}, "date": "2026-11-22", "command": "c"}


def test_there_are_results() -> None:
    assert len(RESULTS) >= 7


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results_follow_the_schema_and_write_every_field(path: Path) -> None:
    rows = json.loads(path.read_text())
    assert all(set(row) == set(Measurement.model_fields) for row in rows)
    keys = [row.key for row in read(path)]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_modules_of_recorded_commands_exist(path: Path) -> None:
    modules = {name for row in read(path) for name in re.findall(r"python -m ([\w.]+)", row.command)}
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_a_field_outside_the_schema_is_refused_and_a_detail_is_kept() -> None:
    with pytest.raises(ValidationError, match="speed"):
        Measurement.model_validate({**ROW, "speed": 3})
    assert measurement(**ROW, speed=3).details == {"speed": 3}


def test_a_figure_is_replaced_by_name_model_and_recipe(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    merge(path, [measurement(**ROW), measurement(**ROW, recipe="gptq")])
    merge(path, [measurement(**{**ROW, "value": 2.0})])
    assert [(row.recipe, row.value) for row in read(path)] == [(None, 2.0), ("gptq", 1.0)]


def test_a_recorded_figure_is_the_median_of_its_runs(tmp_path: Path) -> None:
    records = Records(tmp_path / "results.json", "some_script", shape="tiny")
    assert records.add("some_s", [3.0, 1.0, 2.0], "s", target=4, tokens=7) == 2.0
    (row,) = read(tmp_path / "results.json")
    assert (row.runs, row.shape, row.target, row.details) == ([3.0, 1.0, 2.0], "tiny", 4.0, {"tokens": 7})
    assert records.detail("some_s", "tokens") == 7
