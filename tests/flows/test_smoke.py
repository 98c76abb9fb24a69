"""The whole pipeline on a made-up model, as a user tries it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.pipeline import environment


def test_smoke_runs_every_stage_and_writes_nowhere_else(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    unreachable = "http://127.0.0.1:9"  # the port `discard`: a download would fail
    env = environment(MLFLOW_TRACKING_URI=unreachable, https_proxy=unreachable, http_proxy=unreachable)
    done = subprocess.run(
        [sys.executable, "-m", "fairgate", "smoke", "--out", str(out)], cwd=elsewhere, env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("fetch", "calibrate", "quantize fair_gptq", "evaluate base", "gate", "report", "register"):
        assert f"\n  {step} " in done.stdout
    verdict = json.loads((out / "data/reports/fair_gptq/verdict.json").read_text())
    assert f"Verdict on fair_gptq: {verdict['verdict']} (6 checks); registered: " in done.stdout
    assert all(check["n"] >= 4 for check in verdict["checks"] if check["name"] != "quantization_health")
    receipt = json.loads((out / "data/reports/fair_gptq/registration.json").read_text())
    assert receipt["tracking_uri"] == f"sqlite:///{out / 'mlflow.db'}"
    assert "two-layer-llama" in (out / "data/reports/index.html").read_text()
    assert list(elsewhere.iterdir()) == []


def test_smoke_does_not_write_into_a_folder_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "fairgate", "smoke", "--out", str(tmp_path)], env=environment(), capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2 and "not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
