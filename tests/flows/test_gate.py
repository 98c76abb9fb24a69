"""`fairgate gate` exits by the verdict, and the DVC stage does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from fairgate.__main__ import main
from fairgate.contracts.item_table import write_items
from fairgate.contracts.records import write_record
from tests.items import CROWS_CHECK, crows, environment, quantization
from tests.pipeline import environment as process_environment


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the gate reads; `write_candidate` adds the candidate's items."""
    monkeypatch.chdir(tmp_path)
    gate = {"candidate": "fair", "reference": "base", "confidence": 0.95, "draws": 10_000, "seed": 0, "checks": [CROWS_CHECK]}
    recipes = {"base": {"method": "none"}, "fair": {"method": "fair_gptq"}}
    Path("params.yaml").write_text(yaml.safe_dump({"gate": gate, "recipes": recipes}))
    for model, digest in (("base", "b" * 64), ("fair", "w" * 64)):
        write_record(f"data/evaluation/{model}/environment.json", environment(weight_digest=digest))
    write_record("data/models/fair/quantization.json", quantization("fair"))
    return tmp_path


def write_items_of(model: str, stereotyped: np.ndarray) -> None:
    write_items(f"data/evaluation/{model}/items.parquet", [row | {"model": model} for row in crows(stereotyped)])


@pytest.mark.parametrize(
    ("items", "period", "code", "verdict"),
    [(600, 5, 0, "approve"), (600, 1, 1, "reject"), (50, 5, 3, "inconclusive")],
)
def test_the_verdict_is_the_exit_code(
    project: Path, capsys: pytest.CaptureFixture[str], items: int, period: int, code: int, verdict: str
) -> None:
    write_items_of("base", np.arange(items) % 5 < 3)
    write_items_of("fair", np.arange(items) % period < 3)
    assert main(["gate"]) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"Verdict: {verdict}; exit code {code} (")


def test_the_dvc_stage_is_done_when_it_rejected(project: Path) -> None:
    write_items_of("base", np.arange(600) % 5 < 3)
    write_items_of("fair", np.ones(600, dtype=bool))
    done = subprocess.run(
        [sys.executable, "-m", "stages.gate"], cwd=project, env=process_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "reject" in done.stdout, done.stderr
