from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from fairgate.contracts.gptq_format import pack, unpack
from fairgate.contracts.item_table import read_items
from fairgate.contracts.records import Role
from fairgate.support.errors import BadRecord, FairgateError, MissingFile, UnknownName
from fairgate.support.params import parse
from stages.evaluate import model as models
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.model import load
from stages.evaluate.prepare import PreparedTasks
from stages.evaluate.settings import Evaluate
from tests.stages.evaluate.evaluation import evaluate
from tests.stages.evaluate.raw import RECORDS, write_raw, write_split, write_tasks
from tests.tiny import make_tiny_llama

GATE = {"stereoset": 9, "crows_pairs": 6, "piqa": None, "openbookqa": 3, "boolq": 2, "perplexity": 2}


def test_item_table_metrics_and_environment(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    metrics = evaluate("base", work / "llama", tmp_path / "out", settings(tasks=GATE), catalogue, role=Role.gate)
    rows = read_items(tmp_path / "out" / "items.parquet").to_pylist()
    assert {row["benchmark"] for row in rows} == set(GATE)
    assert {row["model"] for row in rows} == {"base"}
    item = next(row for row in rows if row["benchmark"] == "stereoset")
    mean = [total / count for total, count in zip(item["option_loglik"], item["n_tokens"], strict=True)]
    assert len(mean) == 3
    assert item["biased"] == (mean[0] > mean[1])
    assert item["answer"] == (0 if mean[0] > mean[1] else 1)
    question = next(row for row in rows if row["benchmark"] == "boolq")
    assert question["n_chars"] == [2, 3]
    assert question["gold"] == int(question["item_id"]) % 2
    passages = {row["cluster"] for row in rows if row["benchmark"] == "boolq"}
    assert len(passages) < len([row for row in rows if row["benchmark"] == "boolq"])
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics
    assert {"stereoset.ss", "stereoset.icat", "crows_pairs.pct_stereotype", "piqa.acc_norm", "perplexity.ppl"} <= set(metrics)
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environment["tasks"]["piqa"] | {"version": "1.0", "items": 6, "available": 6, "upstream": 1838} == environment["tasks"]["piqa"]
    assert environment["start_token"]["text"] == "<s>"


def test_two_runs_are_equal_byte_for_byte(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    for name in ("first", "second"):
        evaluate("base", work / "llama", tmp_path / name, settings(tasks=GATE), catalogue, role=Role.gate)
    for file in ("items.parquet", "metrics.json", "environment.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


def test_two_models_are_judged_on_the_same_items(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    keys = []
    for name in ("llama", "opt"):
        evaluate(name, work / name, tmp_path / name, settings(tasks=GATE), catalogue, role=Role.gate)
        rows = read_items(tmp_path / name / "items.parquet").to_pylist()
        keys.append([(row["benchmark"], row["item_id"], row["prompt_hash"]) for row in rows])
    assert keys[0] == keys[1]


def test_development_takes_its_own_tasks_and_terms(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    evaluate("base", work / "llama", tmp_path / "out", settings(tasks=GATE), catalogue, role=Role.development)
    rows = read_items(tmp_path / "out" / "items.parquet").to_pylist()
    assert {row["benchmark"] for row in rows} == {"stereoset_dev", "redditbias_valid", "winobias_dev", "perplexity_dev"}
    assert {row["cluster"] for row in rows if row["benchmark"] == "stereoset_dev"} == {"Gardener"}
    # Two of eight comments a group also stand in the test files.
    assert len([row for row in rows if row["benchmark"] == "redditbias_valid"]) == 24
    wino = [row for row in rows if row["benchmark"] == "winobias_dev"]
    # The second pair of lines names one referent twice: nothing to choose between.
    assert len(wino) == 8
    assert {row["subgroup"] for row in wino} == {"pro_male", "pro_female", "anti_male", "anti_female"}


def refused(work: Path, settings: Any, split: Path, task: str, role: Role = Role.gate) -> str:
    catalogue = Catalogue(work / "raw", split, work / "tasks")
    with pytest.raises(FairgateError) as error:
        evaluate("base", work / "llama", work / "never", settings(), catalogue, role=role, tasks=[task])
    assert not (work / "never").exists()
    return str(error.value)


def test_data_of_another_role_are_refused(work: Path, settings: Any, tmp_path: Path) -> None:
    split = write_split(tmp_path / "split.json", roles={"crows_pairs": Role.calibration, "stereoset_test": Role.gate})
    assert "'crows_pairs' has the role calibration" in refused(work, settings, split, "crows_pairs")
    assert "'piqa' has no role" in refused(work, settings, split, "piqa")
    assert "is a gate task, asked for as development" in refused(work, settings, split, "stereoset", Role.development)


@pytest.mark.parametrize("code", [{}, {"auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}])
def test_foreign_architecture_is_an_error_and_its_code_never_runs(tmp_path: Path, code: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", **code}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(FairgateError, match="no architecture that transformers"):
        load(tmp_path, dtype="float32", device="cpu")
    assert not (tmp_path / "ran").exists()


def test_unknown_task_and_missing_files(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'stereoset'"):
        evaluate("base", work / "llama", tmp_path / "out", settings(), catalogue, role=Role.gate, tasks=["steroset"])
    with pytest.raises(UnknownName, match="did you mean 'piqa'"):
        evaluate("base", work / "llama", tmp_path / "out", settings(tasks={"pika": 3}), catalogue, role=Role.gate)
    with pytest.raises(MissingFile, match=r"no_model: no model \(config.json\)"):
        evaluate("base", work / "no_model", tmp_path / "out", settings(), catalogue, role=Role.gate, tasks=["piqa"])
    empty = Catalogue(tmp_path / "raw", work / "split.json", work / "tasks")
    with pytest.raises(MissingFile, match="no data for piqa"):
        evaluate("base", work / "llama", tmp_path / "out", settings(), empty, role=Role.gate, tasks=["piqa"])


@pytest.mark.parametrize("task", sorted(RECORDS))
def test_another_record_count_is_refused(work: Path, tmp_path: Path, task: str) -> None:
    tasks = write_tasks(tmp_path / "tasks")
    file = next(tasks.rglob(f"{task}.yaml"))
    file.write_text(file.read_text().replace(f"made_up: {RECORDS[task]}", "made_up: 5"))
    with pytest.raises(FairgateError, match=rf"{RECORDS[task]} records, accepted are 5 \(made_up\)"):
        Catalogue(work / "raw", work / "split.json", tasks).load(task)


def test_a_stereoset_item_without_one_of_each_label_is_refused(work: Path, tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    path = raw / "stereoset_test" / "test.json"
    data = json.loads(path.read_text())
    data["data"]["intrasentence"][3]["sentences"][0]["gold_label"] = "stereotype"
    path.write_text(json.dumps(data))
    with pytest.raises(BadRecord, match="item item3"):
        Catalogue(raw, work / "split.json", work / "tasks").load("stereoset")


def make_packed(base: Path, folder: Path, bits: int = 4, group: int = 32) -> dict[str, torch.Tensor]:
    """A packed checkpoint of the tiny model, every linear layer rounded to nearest; returns the
    dequantized weights.
    """
    folder.mkdir()
    weights = load_file(base / "model.safetensors")
    state: dict[str, torch.Tensor] = {}
    rounded: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if "_proj.weight" not in name:
            state[name] = weight
            continue
        groups = weight.reshape(len(weight), -1, group)
        zero = 2 ** (bits - 1)
        scale = (groups.abs().amax(-1) / (zero - 1)).half()
        codes = (groups / scale.float()[..., None]).round().add(zero).clamp(0, 2 * zero - 1).reshape(weight.shape).to(torch.uint8)
        parts = pack(codes, scale, torch.full_like(scale, zero, dtype=torch.int32), bits, group)
        rounded[name] = unpack(parts, bits)
        state |= {f"{name.removesuffix('.weight')}.{part}": tensor for part, tensor in parts.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    for file in base.glob("*.json"):
        (folder / file.name).write_text(file.read_text())
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False, "sym": True, "checkpoint_format": "gptq",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return rounded


def test_a_packed_checkpoint_is_scored_by_its_dequantized_weights(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    rounded = make_packed(work / "llama", tmp_path / "packed")
    model = load(tmp_path / "packed", dtype="float32", device="cpu")
    state = model.network.state_dict()
    assert len(rounded) == 14
    assert all(torch.equal(state[name], weight) for name, weight in rounded.items())
    evaluate("rtn", tmp_path / "packed", tmp_path / "out", settings(), catalogue, role=Role.gate, tasks=["boolq"])
    check = json.loads((tmp_path / "out" / "environment.json").read_text())["packed_kernel"]
    assert 0 <= check["difference"] < check["tolerance"]


def test_a_kernel_that_disagrees_is_refused(work: Path, tmp_path: Path) -> None:
    make_packed(work / "llama", tmp_path / "packed")
    model = load(tmp_path / "packed", dtype="float32", device="cpu")
    with torch.no_grad():
        model.network.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    with pytest.raises(FairgateError, match="packed kernel differ"):
        models.kernel_difference(model, tmp_path / "packed")


def test_a_model_whose_logits_are_all_equal_is_said_to_be_one_and_broken_ones_are_not_blamed_on_the_kernel(
    work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_packed(work / "llama", tmp_path / "packed")
    stored = load_file(tmp_path / "packed" / "model.safetensors")
    for value, name in ((0.0, "flat"), (float("nan"), "broken")):
        folder = shutil.copytree(tmp_path / "packed", tmp_path / name)
        norm = torch.full_like(stored["model.norm.weight"], value)
        save_file({**stored, "model.norm.weight": norm}, folder / "model.safetensors", {"format": "pt"})
    assert models.kernel_difference(load(tmp_path / "flat", dtype="float32", device="cpu"), tmp_path / "flat") == 0
    assert "all logits are equal" in caplog.text
    # A kernel that predicts something where the weights predict nothing does not serve them.
    flat = load(tmp_path / "flat", dtype="float32", device="cpu")
    with pytest.raises(FairgateError, match="packed kernel differ by inf"):
        models.kernel_difference(flat, tmp_path / "packed")
    with pytest.raises(FairgateError, match="logits of the unpacked weights are not numbers"):
        models.kernel_difference(load(tmp_path / "broken", dtype="float32", device="cpu"), tmp_path / "broken")


def test_activations_beyond_float16_are_told_and_not_blamed_on_the_file(work: Path, tmp_path: Path) -> None:
    make_packed(work / "llama", tmp_path / "packed")
    stored = load_file(tmp_path / "packed" / "model.safetensors")
    scales = {name: (value * 2000).clamp(max=60000) for name, value in stored.items() if "mlp" in name and name.endswith(".scales")}
    save_file({**stored, **scales}, tmp_path / "packed" / "model.safetensors", {"format": "pt"})
    with pytest.raises(FairgateError, match=r"packed kernel are not numbers[\s\S]*overflow the float16"):
        models.kernel_difference(load(tmp_path / "packed", dtype="float32", device="cpu"), tmp_path / "packed")


def test_another_quantization_is_refused(work: Path, tmp_path: Path) -> None:
    make_packed(work / "llama", tmp_path / "packed")
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "marlin"
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config))
    with pytest.raises(FairgateError, match="gptq / marlin"):
        load(tmp_path / "packed", dtype="float32", device="cpu")


def test_command_line_names_the_nearest_recipe(tmp_path: Path) -> None:
    params = {"recipes": {"fair_gptq": {"method": "fair_gptq"}}, "evaluate": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, "-m", "stages.evaluate", "--recipe", "fair_gtpq"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "did you mean 'fair_gptq'" in done.stderr


def test_a_checkpoint_that_lacks_a_weight_is_refused(work: Path, tmp_path: Path) -> None:
    make_packed(work / "llama", tmp_path / "packed")
    file = tmp_path / "packed" / "model.safetensors"
    state = load_file(file)
    del state["model.norm.weight"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(FairgateError, match=r"1 weights are missing or unknown, first 'model.norm.weight'"):
        load(tmp_path / "packed", dtype="float32", device="cpu")


def test_a_checkpoint_cut_short_is_refused(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "llama", tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(BadRecord, match=r"model.safetensors: not a whole safetensors file"):
        load(tmp_path / "cut", dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [({"device": "gpu"}, r"device: .*\(got 'gpu'\)"), ({"tasks": {"piqa": 0}}, "tasks.piqa"), ({"role": "gte"}, "did you mean 'gate'")],
)
def test_a_wrong_value_of_the_section_is_named(settings: Any, change: dict[str, Any], words: str) -> None:
    with pytest.raises(FairgateError, match=words):
        parse(Evaluate, settings().model_dump() | change, where="params.yaml:evaluate")


def test_a_task_that_an_earlier_model_made_ready_is_not_read_again(settings: Any, tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    catalogue = Catalogue(raw, write_split(tmp_path / "split.json"), write_tasks(tmp_path / "tasks"))
    models = [make_tiny_llama(tmp_path / name, seed) for seed, name in enumerate(("one", "two"))]
    options: dict[str, Any] = {"role": Role.gate, "tasks": ["piqa", "perplexity"]}
    evaluate("m", models[1], tmp_path / "alone", settings(), catalogue, **options)
    prepared = PreparedTasks()
    evaluate("m", models[0], tmp_path / "first", settings(), catalogue, prepared=prepared, **options)
    (raw / "piqa/validation.jsonl").write_text("{}\n")
    evaluate("m", models[1], tmp_path / "second", settings(), catalogue, prepared=prepared, **options)
    assert (tmp_path / "second/items.parquet").read_bytes() == (tmp_path / "alone/items.parquet").read_bytes()
    with pytest.raises(FairgateError):  # drawn otherwise, the task is another one
        evaluate(
            "m", models[1], tmp_path / "third", settings(tasks={"piqa": 3}), catalogue, prepared=prepared, role=Role.gate, tasks=["piqa"]
        )
