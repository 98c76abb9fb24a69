"""The project's scorer against lm-eval's own evaluator, on the same task files and data.

Parity holds for tokenizers that append nothing and whose tokens end where a prompt ends. lm-eval
reads an appended EOS at the end of the prompt, in place of the answer's first token, and scores the
EOS behind the answer; and it counts tokens where one runs over the boundary. There the two differ,
and a test says how.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from fairgate.contracts.item_table import read_items
from fairgate.support.files import read_json
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.model import load
from stages.evaluate.task import Item
from stages.evaluate.tokens import Encoder
from tests.stages.evaluate.evaluation import evaluate
from tests.stages.evaluate.test_tokens import spanning
from tests.tiny import make_tiny_llama

CHOICE = ["boolq", "crows_pairs", "openbookqa", "piqa", "stereoset"]


def ours(work: Path, catalogue: Catalogue, settings: Any, model: str, out: Path, tasks: list[str], role: str = "gate") -> dict[str, list]:
    evaluate(model, work / model, out, settings(), catalogue, role=role, tasks=tasks)  # type: ignore[arg-type]
    table = read_items(out / "items.parquet").to_pylist()
    return {task: [row for row in table if row["benchmark"] == task] for task in tasks}


def theirs(work: Path, model: Path | str, tasks: list[str], window: int = 256) -> dict[str, Any]:
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


def with_an_end(folder: Path, copy: Path) -> Path:
    """The model with a tokenizer that puts BOS in front and appends EOS."""
    shutil.copytree(folder, copy)
    tokenizer = Tokenizer.from_file(str(copy / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer.save(str(copy / "tokenizer.json"))
    return copy


def test_lm_eval_puts_an_appended_end_in_the_place_of_an_answers_first_token(
    work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path
) -> None:
    model = with_an_end(work / "llama", tmp_path / "ends")
    rows = ours(tmp_path, catalogue, settings, "ends", tmp_path / "out", ["boolq", "perplexity"])
    network = load(model, dtype="float32", device="cpu").network
    samples = sorted(theirs(work, model, ["boolq"])["boolq"], key=lambda s: s["doc_id"])
    tokenizer = AutoTokenizer.from_pretrained(work / "llama")  # which adds nothing

    def likelihood(context: list[int], option: list[int]) -> float:
        with torch.inference_mode():
            logprobs = network(input_ids=torch.tensor([context + option])).logits[0].log_softmax(-1)
        return sum(float(logprobs[len(context) - 1 + place, token]) for place, token in enumerate(option))

    for row, sample in zip(rows["boolq"], samples, strict=True):
        for (prompt, answer), value, (response,) in zip(sample["arguments"], row["option_loglik"], sample["resps"], strict=True):
            context, option = [0, *tokenizer.encode(prompt)], tokenizer.encode(answer)
            assert value == pytest.approx(likelihood(context, option), abs=1e-4)
            # An end behind the prompt takes the place of the answer's first token, which is lost.
            assert response[0] == pytest.approx(likelihood([*context, 1], [*option[1:], 1]), abs=1e-4)
            assert abs(value - response[0]) > 0.01
    rule = read_json(tmp_path / "out/environment.json")["start_token"]["rule"]
    assert rule.endswith("other contexts as the tokenizer encodes them; '</s>', which it appends, is left out")
    plain = ours(work, catalogue, settings, "llama", tmp_path / "plain", ["perplexity"])["perplexity"]
    # The start token is one more, as lm-eval counts it; the end is not.
    assert sum(row["n_tokens"][0] for row in rows["perplexity"]) == sum(row["n_tokens"][0] for row in plain) + 1


def test_lm_eval_finds_no_token_of_an_answer_that_a_token_joins_to_the_prompt(tmp_path: Path) -> None:
    folder, tokenizer = make_tiny_llama(tmp_path / "llama"), spanning()
    tokenizer.save_pretrained(folder)
    prompts = (("is it? Answer:", " no"), ("is it? Answer:", " maybe"))
    item = Item("x", "x", None, None, None, prompts, (3, 6))
    no, maybe = Encoder(tokenizer, 256).encode([item], "made_up")[0].requests
    lm = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1)
    assert lm._encode_pair(*prompts[0])[1] == []
    assert tokenizer.decode(lm._encode_pair(*prompts[1])[1]) == "maybe"  # its space is lost
    assert [tokenizer.decode(request.option) for request in (no, maybe)] == ["Answer: no", "Answer: maybe"]


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
