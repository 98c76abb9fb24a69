"""A project folder as the report stage leaves it: a tiny checkpoint, its records, a verdict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from fairgate.contracts.records import Quantization, Role, Split, Verdict, VerdictRecord, write_record
from fairgate.model_folder.weights import weight_digest
from fairgate.support.digests import sha256_file, sha256_json
from fairgate.support.files import write_json
from tests.tiny import make_tiny_llama

REPOSITORY = Path(__file__).resolve().parents[1]
CANDIDATE = "fair_gptq"
HEALTH_CHECK = {
    "name": "health",
    "metric": "quantization.fallback_rtn",
    "rule": "health",
    "by": "overall",
    "margin": 0.0,
    "minimum_n": 1,
    "reason": "a test",
}


def params(model: str = "tiny") -> dict[str, Any]:
    return {
        "model": model,
        "matrix": [CANDIDATE],
        "gate": {"candidate": CANDIDATE, "reference": "base", "confidence": 0.95, "draws": 10_000, "seed": 0, "checks": [HEALTH_CHECK]},
        "register": {"experiment": "fairgate", "max_new_tokens": 5},
    }


def make_project(root: Path, verdict: Verdict = Verdict.approve, checkpoint: Path | None = None) -> Path:
    """Write the inputs of register below `root`, with `checkpoint` or a tiny Llama."""
    (root / "params.yaml").write_text(yaml.safe_dump(params()))
    shutil.copy(REPOSITORY / "constraints.txt", root / "constraints.txt")
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    model = root / "data/models" / CANDIDATE
    if checkpoint:
        shutil.copytree(checkpoint, model)
    else:
        make_tiny_llama(model)
    _records(root, model)
    for recipe in ("base", CANDIDATE):
        write_json(root / f"data/evaluation/{recipe}/metrics.json", {"stereoset.ss": 50.5, "piqa": {"acc": 0.6}})
        (root / f"data/evaluation/{recipe}/items.parquet").write_bytes(recipe.encode())
    report = root / "data/reports"
    report.mkdir(parents=True)
    (report / "index.html").write_text("<h1>report</h1>")
    shutil.copytree(model, report / CANDIDATE / "checkpoint")
    (report / CANDIDATE / "checkpoint/README.md").write_text("# A tiny model\n")
    write_verdict(root, verdict)
    return root


def write_verdict(root: Path, verdict: Verdict) -> None:
    """The verdict record bound to the files as they stand now."""
    inputs = [f"data/evaluation/{recipe}/items.parquet" for recipe in ("base", CANDIDATE)]
    inputs.append(f"data/models/{CANDIDATE}/quantization.json")
    record = VerdictRecord(
        verdict=verdict,
        candidate=CANDIDATE,
        reference="base",
        reasons=[] if verdict is Verdict.approve else ["religion: harm 5.0 above the margin 2.0"],
        checks=[],
        policy_digest=sha256_json(yaml.safe_load((root / "params.yaml").read_text())["gate"]),
        weight_digest=weight_digest(root / f"data/models/{CANDIDATE}"),
        inputs={name: sha256_file(root / name) for name in inputs},
        confidence=0.95,
        draws=100,
        seed=0,
    )
    write_record(root / f"data/reports/{CANDIDATE}/verdict.json", record)


def _records(root: Path, model: Path) -> None:
    digest = weight_digest(model)
    record = Quantization(
        recipe=CANDIDATE,
        method="fair_gptq",
        settings={"bits": 4, "group_size": 32},
        architecture="llama",
        base_digest="b" * 64,
        base_weight_digest="b" * 64,
        weight_digest=digest,
        files={"config.json": sha256_file(model / "config.json")},
        pairs_digest="c" * 64,
        text_digest="d" * 64,
        pairs=2,
        texts=2,
        tokens=20,
        versions={},
        seed=0,
        bytes_base=2,
        bytes_packed=1,
        notes=[],
        modules=[],
    )
    write_record(model / "quantization.json", record)
    split = Split(
        seed=0,
        roles={"stereoset": Role.gate},
        calibration_terms=[],
        development_terms=[],
        dropped={},
        overlaps=[],
        pairs=2,
        texts=2,
        pairs_digest="c" * 64,
        text_digest="d" * 64,
    )
    write_record(root / "data/calibration/split.json", split)
    (root / "data/raw").mkdir(parents=True)
    (root / "data/raw/SOURCES.json").write_text(
        json.dumps({"schema": 1, "sets": {"stereoset": {"files": {"test.json": {"sha256": "e" * 64}}}}})
    )
