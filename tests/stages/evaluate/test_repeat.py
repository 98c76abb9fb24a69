from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from fairgate.contracts.item_table import read_items
from fairgate.contracts.records import Environment, Role, read_record
from fairgate.metrics.noise import Noise
from stages.evaluate.catalogue import Catalogue
from tests.stages.evaluate.evaluation import evaluate

TASKS = ["stereoset", "crows_pairs", "piqa", "perplexity"]


def test_the_floor_is_what_another_batch_and_dtype_flip(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    run: dict[str, Any] = {"role": Role.gate, "tasks": TASKS}
    evaluate("base", work / "llama", tmp_path / "out", settings(batch_tokens="auto"), catalogue, twice=True, **run)
    noise = read_record(Noise, tmp_path / "out/noise.json")
    first, second = noise.runs
    assert (first.dtype, first.batch_tokens, second.dtype, second.batch_tokens) == ("float32", 2048, "bfloat16", 1024)
    assert noise.weight_digest == read_record(Environment, tmp_path / "out/environment.json").weight_digest
    assert {name: floor.n for name, floor in noise.floors.items()} == {"stereoset": 24, "crows_pairs": 12, "piqa": 6}
    other = settings(batch_tokens=1024, dtype="bfloat16")
    evaluate("base", work / "llama", tmp_path / "other", other, catalogue, **run)
    one, two = (
        {(row["benchmark"], row["item_id"]): row["answer"] for row in read_items(tmp_path / name / "items.parquet").to_pylist()}
        for name in ("out", "other")
    )
    for name, floor in noise.floors.items():
        flipped = [one[key] != two[key] for key in one if key[0] == name]
        assert floor.answer_flips == sum(flipped) / len(flipped)
    assert noise.floors["piqa"].bias_flips is None


def test_repeat_and_shard_exclude_each_other(tmp_path: Path) -> None:
    section = {"role": "gate", "seed": 0, "device": "cpu", "dtype": "float32", "batch_tokens": 64, "tasks": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"recipes": {"base": {"method": "none"}}, "evaluate": section}))
    command = [sys.executable, "-m", "stages.evaluate", "--recipe", "base", "--repeat", "--shard", "1/2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--repeat, --shard: cannot be given together" in done.stderr
