"""The stage on files: what it writes, and that it writes nothing where its inputs are not whole."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fairgate.contracts.item_table import write_items
from fairgate.contracts.records import Verdict, VerdictRecord, read_record, write_record
from fairgate.metrics.noise import Floor, Noise, Stack
from fairgate.support.cli import run
from fairgate.support.digests import sha256_file, sha256_json
from fairgate.support.files import write_json
from stages.gate.__main__ import main
from tests.items import CROWS_CHECK, crows, environment, quantization

GATE: dict[str, Any] = {"candidate": "fair", "reference": "base", "confidence": 0.95, "draws": 10_000, "seed": 0, "checks": [CROWS_CHECK]}
RECIPES: dict[str, Any] = {"base": {"method": "none"}, "fair": {"method": "fair_gptq"}}
VERDICT = Path("data/reports/fair/verdict.json")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder in which the candidate equals its base, with an old verdict lying about."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump({"gate": GATE, "recipes": RECIPES}))
    rows = crows(np.arange(600) % 5 < 3)
    for model, digest in (("base", "b" * 64), ("fair", "w" * 64)):
        _write(model, rows)
        _measured(model, weight_digest=digest)
    write_record("data/models/fair/quantization.json", quantization("fair"))
    write_json(VERDICT, {"verdict": "approve", "from": "an earlier run"})
    return tmp_path


def _write(model: str, rows: list[dict[str, Any]]) -> None:
    write_items(f"data/evaluation/{model}/items.parquet", [row | {"model": model} for row in rows])


def _measured(model: str, **changes: Any) -> None:
    write_record(f"data/evaluation/{model}/environment.json", environment(**changes))


def gate() -> int:
    return run("gate", main, argparse.ArgumentParser(), ["--params", "params.yaml"])


def test_the_verdict_names_what_it_was_made_from(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate() == 0
    record = read_record(VerdictRecord, VERDICT)
    assert record.verdict is Verdict.approve
    files = [f"data/evaluation/{model}/{name}" for model in ("fair", "base") for name in ("items.parquet", "environment.json")]
    files.append("data/models/fair/quantization.json")
    assert record.inputs == {name: sha256_file(name) for name in files}
    assert record.policy_digest == sha256_json(GATE)
    assert record.weight_digest == "w" * 64
    printed = capsys.readouterr().out
    assert "verdict on fair: approve" in printed and "n needed" in printed and printed.count("\nbias ") == 1
    assert printed.strip().splitlines()[-1].startswith("  - ")


def test_the_verdict_is_the_same_bytes_twice(project: Path) -> None:
    assert gate() == 0
    first = VERDICT.read_bytes()
    assert gate() == 0
    assert VERDICT.read_bytes() == first


def test_a_rejection_is_a_result_not_an_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write("fair", crows(np.arange(600) % 5 < 4))
    assert gate() == 0
    assert json.loads(VERDICT.read_text())["verdict"] == "reject"
    assert "bias failed" in capsys.readouterr().out


def test_a_candidate_that_is_no_recipe_names_the_nearest(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"gate": GATE | {"candidate": "fiar"}, "recipes": RECIPES}))
    assert gate() == 2
    assert "unknown recipe 'fiar'" in (printed := capsys.readouterr().err) and "did you mean 'fair'" in printed


def _damage(name: str) -> None:
    rows = crows(np.arange(600) % 5 < 3)
    if name.startswith("no "):
        Path(name.removeprefix("no ")).unlink()
    elif name == "missing item":
        _write("fair", rows[1:])
    elif name == "missing item in the base":
        _write("base", rows[1:])
    elif name == "another prompt":
        _write("fair", [rows[0] | {"prompt_hash": "x"}, *rows[1:]])
    elif name == "another task version":
        _write("fair", [row | {"task_version": "2"} for row in rows])
    elif name == "not a number":
        _write("fair", [rows[0] | {"option_loglik": [float("nan"), -1.0]}, *rows[1:]])
    elif name == "items of another model":
        _write("fair", rows)
        Path("data/evaluation/base/items.parquet").write_bytes(Path("data/evaluation/fair/items.parquet").read_bytes())
    elif name == "records of another recipe":
        write_record("data/models/fair/quantization.json", quantization("rtn"))
    elif name == "items of other weights":
        _measured("fair", weight_digest="v" * 64)
    elif name == "items of another base":
        _measured("base", weight_digest="v" * 64)
    elif name == "another precision":
        _measured("fair", dtype="bfloat16")
    elif name == "another start token":
        _measured("base", start_token={"text": "</s>"})
    elif name == "a development run":
        _measured("base", role="development")
        _measured("fair", role="development")
    elif name == "broken records":
        Path("data/models/fair/quantization.json").write_text('{"schema": 1}')
    elif name == "broken table":
        Path("data/evaluation/fair/items.parquet").write_bytes(b"no parquet")
    else:
        change = {"empty policy": {"checks": []}, "unknown benchmark": {"checks": [CROWS_CHECK | {"metric": "stereoset.ss"}]},
                  "unknown metric": {"checks": [CROWS_CHECK | {"metric": "crows_pairs.pct"}]}}[name]  # fmt: skip
        Path("params.yaml").write_text(yaml.safe_dump({"gate": {**GATE, **change}, "recipes": RECIPES}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no data/evaluation/fair/items.parquet", "data/evaluation/fair/items.parquet: no such file"),
        ("no data/evaluation/base/items.parquet", "data/evaluation/base/items.parquet: no such file"),
        ("no data/evaluation/fair/environment.json", "environment.json: no such file"),
        ("no data/evaluation/base/environment.json", "environment.json: no such file"),
        ("no data/models/fair/quantization.json", "quantization.json: no such file"),
        ("missing item", "crows_pairs, item '00000': 1 items are missing in the table of the candidate"),
        ("missing item in the base", "missing in the table of the reference"),
        ("another prompt", "prompt_hash differs"),
        ("another task version", "task_version differs"),
        ("not a number", "log-likelihood is not finite"),
        ("items of another model", "holds items of ['fair'] instead of 'base'"),
        ("records of another recipe", "holds recipe 'rtn' instead of 'fair'"),
        ("items of other weights", "the items are of weights vvvvvvvvvvvv, quantization.json names wwwwwwwwwwww"),
        ("items of another base", "environment.json of base: the items are of weights vvvvvvvvvvvv instead of bbbbbbbbbbbb"),
        ("another precision", "dtype differs: candidate bfloat16, reference float32"),
        ("another start token", "start_token differs"),
        ("a development run", "measured for development, not for the gate"),
        ("broken records", "field 'recipe'"),
        ("broken table", "not a readable item table"),
        ("empty policy", "no checks"),
        ("unknown benchmark", "needs benchmark 'stereoset', which was not evaluated"),
        ("unknown metric", "did you mean 'crows_pairs.pct_stereotype'"),
    ],
)
def test_whatever_is_not_whole_leaves_no_verdict(project: Path, capsys: pytest.CaptureFixture[str], damage: str, message: str) -> None:
    _damage(damage)
    assert gate() == 2
    assert message in capsys.readouterr().err
    if damage not in ("empty policy", "unknown metric"):  # then nobody can say whose verdict it would be
        assert not VERDICT.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"weight_digest": "v" * 64}, "environment.json of rtn: the items are of weights wwwwwwwwwwww instead of vvvvvvvvvvvv"),
        (
            {"base_weight_digest": "v" * 64},
            "quantization.json of rtn: made from base weights vvvvvvvvvvvv, the candidate from bbbbbbbbbbbb",
        ),
    ],
)
def test_a_quantized_reference_is_of_the_same_base(
    project: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], message: str | None
) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"gate": {**GATE, "reference": "rtn"}, "recipes": {**RECIPES, "rtn": {"method": "rtn"}}}))
    _write("rtn", crows(np.arange(600) % 5 < 3))
    _measured("rtn")
    write_record("data/models/rtn/quantization.json", quantization("rtn").model_copy(update=changes))
    assert gate() == (2 if message else 0)
    assert (message or "") in capsys.readouterr().err


def test_the_command_runs(project: Path) -> None:
    import subprocess

    repository = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "stages.gate"], cwd=project, env={"PYTHONPATH": str(repository)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "verdict on fair: approve" in done.stdout
    assert json.loads(Path("data/timing/gate.json").read_text())["name"] == "gate"


def test_the_noise_floor_is_an_input_of_the_verdict_where_the_policy_asks_for_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = "data/evaluation/base/noise.json"
    assert gate() == 0 and path not in read_record(VerdictRecord, VERDICT).inputs
    Path("params.yaml").write_text(yaml.safe_dump({"gate": GATE | {"checks": [CROWS_CHECK | {"above_noise": True}]}, "recipes": RECIPES}))
    assert gate() == 2 and "no noise floor, which the policy asks for" in capsys.readouterr().err and not VERDICT.exists()

    def measured(weights: str, rate: float) -> None:
        runs = (Stack(dtype="float32", device="cpu", batch_tokens=2048), Stack(dtype="bfloat16", device="cpu", batch_tokens=512))
        floors = {"crows_pairs": Floor(n=600, answer_flips=rate, bias_flips=rate)}
        write_record(path, Noise(weight_digest=weights * 64, runs=runs, floors=floors))

    measured("w", 0.01)
    assert gate() == 2 and "measured on weights wwwwwwwwwwww instead of bbbbbbbbbbbb" in capsys.readouterr().err
    measured("b", 0.01)
    assert gate() == 0
    record = read_record(VerdictRecord, VERDICT)
    assert record.inputs[path] == sha256_file(path) and record.verdict is Verdict.approve
    measured("b", 0.04)
    assert gate() == 0 and read_record(VerdictRecord, VERDICT).verdict is Verdict.inconclusive
