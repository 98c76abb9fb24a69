"""The notebook runs from top to bottom, on made-up data and on a run's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import yaml

from fairgate.contracts.item_table import write_items
from fairgate.contracts.records import write_record
from stages.gate.stage import gate
from tests.items import environment, flipped, quantization, stereoset
from tests.project import REPOSITORY

CELLS = json.loads((REPOSITORY / "notebooks/read_a_verdict.ipynb").read_text())["cells"]
SOURCES = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the code cells leave, run in `folder`; the last cell compares the bounds."""
    matplotlib.use("Agg")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for source in SOURCES:
        exec(compile(source, "read_a_verdict.ipynb", "exec"), names)
    return names


def test_it_is_kept_without_outputs() -> None:
    outputs = [cell["outputs"] for cell in CELLS if cell["cell_type"] == "code"]
    assert len(outputs) > 5 and not any(outputs)


def test_without_a_run_it_makes_up_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notebooks").mkdir()
    names = run(tmp_path / "notebooks", monkeypatch)
    assert names["line"].n == 150 and names["line"].items == 1200
    assert names["outcome"] == names["line"].outcome.value


def test_with_a_run_it_reads_the_verdict_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = {"name": "ss", "metric": "stereoset.ss", "rule": "neutral", "by": "overall"}
    check |= {"margin": 2.0, "minimum_n": 30, "reason": "r"}
    policy = {"candidate": "fair", "reference": "base", "confidence": 0.9, "draws": 10_000}
    recipes = {"base": {"method": "none"}, "fair": {"method": "fair_gptq"}}
    parameters = {"gate": {**policy, "seed": 0, "checks": [check]}, "recipes": recipes}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(parameters))
    before = np.arange(400) * 7919 % 400 < 240
    after = flipped(before, 0.1, np.random.default_rng(0))
    for model, sides, digest in (("base", before, "b" * 64), ("fair", after, "w" * 64)):
        folder = tmp_path / "data/evaluation" / model
        write_items(folder / "items.parquet", [row | {"model": model} for row in stereoset(sides)])
        write_record(folder / "environment.json", environment(weight_digest=digest))
    write_record(tmp_path / "data/models/fair/quantization.json", quantization("fair"))
    (line,) = gate(tmp_path, tmp_path / "params.yaml").checks
    assert run(tmp_path, monkeypatch)["line"] == line
