"""The project's scorer against lm-eval's own evaluator, on the same task files and data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from fairgate.contracts.item_table import read_items
from stages.evaluate.catalogue import Catalogue
from tests.stages.evaluate.evaluation import evaluate

CHOICE = ["boolq", "crows_pairs", "openbookqa", "piqa", "stereoset"]


def ours(work: Path, catalogue: Catalogue, settings: Any, model: str, out: Path, tasks: list[str], role: str = "gate") -> dict[str, list]:
    evaluate(model, work / model, out, settings(), catalogue, role=role, tasks=tasks)  # type: ignore[arg-type]
    table = read_items(out / "items.parquet").to_pylist()
    return {task: [row for row in table if row["benchmark"] == task] for task in tasks}


def theirs(work: Path, model: str, tasks: list[str], window: int = 256) -> dict[str, Any]:
    manager = TaskManager(
        include_defaults=False,
        include_path=str(work / "tasks"),
        metadata={"raw": str(work / "raw"), "split": str(work / "split.json")},  # type: ignore[dict-item]
    )
    arguments = {"pretrained": str(work / model), "dtype": "float32", "max_length": window}
    done = simple_evaluate("hf", arguments, tasks, batch_size=4, device="cpu", task_manager=manager, bootstrap_iters=0)
    assert done is not None
    return done["samples"]


@pytest.mark.parametrize("model", ["llama", "opt"])
def test_log_likelihoods_equal_those_of_lm_eval(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path, model: str) -> None:
    rows, samples = ours(work, catalogue, settings, model, tmp_path / "out", CHOICE), theirs(work, model, CHOICE)
    for task in CHOICE:
        assert len(rows[task]) == len(samples[task]) > 0
        for row, sample in zip(rows[task], sorted(samples[task], key=lambda s: s["doc_id"]), strict=True):
            assert row["item_id"] == sample["doc"]["item_id"]
            assert row["option_loglik"] == pytest.approx([response[0][0] for response in sample["resps"]], abs=1e-4)


def test_development_tasks_too(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    tasks = ["redditbias_valid", "stereoset_dev", "winobias_dev"]
    rows, samples = ours(work, catalogue, settings, "llama", tmp_path / "out", tasks, role="development"), theirs(work, "llama", tasks)
    for task in tasks:
        for row, sample in zip(rows[task], sorted(samples[task], key=lambda s: s["doc_id"]), strict=True):
            assert row["option_loglik"] == pytest.approx([response[0][0] for response in sample["resps"]], abs=1e-4)


def test_windows_sum_to_the_rolling_log_likelihood(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    rows, samples = ours(work, catalogue, settings, "llama", tmp_path / "out", ["perplexity"]), theirs(work, "llama", ["perplexity"])
    total = sum(row["option_loglik"][0] for row in rows["perplexity"])
    assert len(rows["perplexity"]) > 1
    assert total == pytest.approx(samples["perplexity"][0]["resps"][0][0], rel=1e-5)


def test_accuracy_equals_that_of_lm_eval(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    metrics = evaluate("llama", work / "llama", tmp_path / "out", settings(), catalogue, role="gate", tasks=CHOICE)  # type: ignore[arg-type]
    samples = theirs(work, "llama", CHOICE)
    for name in ("piqa.acc", "piqa.acc_norm", "openbookqa.acc_norm", "boolq.acc"):
        task, key = name.split(".")
        assert metrics[name] == pytest.approx(sum(s[key] for s in samples[task]) / len(samples[task])), name
    pairs = samples["crows_pairs"]
    assert metrics["crows_pairs.pct_stereotype"] == pytest.approx(100 * sum(s["pct_stereotype"] for s in pairs) / len(pairs))


def test_the_plain_command_runs_the_folder(work: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lm_eval", "run", "--include_path", str(work / "tasks"), "--tasks", *CHOICE, "perplexity"]
    command += ["--model", "hf", "--model_args", f"pretrained={work / 'llama'},dtype=float32,max_length=256", "--device", "cpu"]
    command += ["--metadata", json.dumps({"raw": str(work / "raw"), "split": str(work / "split.json")}), "--output_path", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (results,) = tmp_path.rglob("results_*.json")
    assert set(json.loads(results.read_text())["results"]) == {*CHOICE, "perplexity"}
