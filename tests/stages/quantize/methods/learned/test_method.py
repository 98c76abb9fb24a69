from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from fairgate.contracts.records import Pair, Quantization, Status, read_records
from fairgate.support.errors import FairgateError
from stages.evaluate.model import load
from stages.quantize.methods import METHODS
from stages.quantize.methods.base import Block
from stages.quantize.methods.closed_form.method import ClosedForm
from stages.quantize.methods.learned import distillation, training
from stages.quantize.methods.learned.data import Triple, encode_triples
from stages.quantize.methods.learned.losses import divergence
from stages.quantize.methods.rtn import Rtn
from stages.quantize.settings import RunSettings, parse_recipe
from stages.quantize.stage import quantize
from tests.tiny import SENTENCES, make_tiny

RUN = RunSettings(device="cpu", seed=0, batch_tokens=256)
FAIR: dict[str, Any] = {
    "method": "fair_round",
    "bits": 3,
    "group_size": 32,
    "symmetric": True,
    "steps": 6,
    "rate": 0.1,
    "texts": 2,
    "text_tokens": 24,
    "pairs": 4,
    "keep": 2,
}
WAYS: list[dict[str, Any]] = [
    {},
    {"block_steps": 2, "start": "gptq", "features": 0.5},
    {"start": "fair_gptq", "alpha": 0.5, "symmetric": False, "context": True},
]


def _recipe(**changes: Any) -> Rtn:
    data = {**FAIR, **changes}
    fields = METHODS[data["method"]].settings.model_fields
    return parse_recipe({key: value for key, value in data.items() if key in fields}, where="test")


def _quantize(base: Path, data: Path, out: Path, /, run: RunSettings = RUN, **changes: Any) -> Quantization:
    return quantize("test", _recipe(**changes), run, base, data, out, out.parent / "work")


@pytest.mark.parametrize("changes", WAYS, ids=["rtn", "blocks-gptq", "fair_gptq-context"])
def test_the_same_seed_gives_the_same_weights(llama: Path, data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    one = _quantize(llama, data, tmp_path / "one", **changes)
    two = _quantize(llama, data, tmp_path / "two", **changes)
    assert one.weight_digest == two.weight_digest
    assert one.training == two.training
    assert one.training.steps == 6
    assert one.training.stopped is None
    assert all(row.status is Status.ok for row in one.modules)
    other = _quantize(llama, data, tmp_path / "other", RUN.model_copy(update={"seed": 1}), **changes)
    assert other.weight_digest != one.weight_digest


def test_learned_is_nearer_to_the_unquantized_model_than_where_it_started(llama: Path, data: Path, tmp_path: Path) -> None:
    _quantize(llama, data, tmp_path / "rtn", method="rtn")
    record = _quantize(llama, data, tmp_path / "learned", method="learned", steps=40, rate=0.05)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    ids = torch.tensor([tokenizer(SENTENCES[0]).input_ids])
    logits = {name: load(path, dtype="float32", device="cpu").network(ids).logits for name, path in _folders(llama, tmp_path)}
    length = torch.tensor([ids.shape[1]])
    far, near = (float(divergence(logits["base"], logits[name], length)) for name in ("rtn", "learned"))
    assert near < 0.7 * far
    assert record.pairs == 0
    assert record.pairs_digest is None


def _folders(base: Path, folder: Path) -> list[tuple[str, Path]]:
    return [("base", base), *((name, folder / name) for name in ("rtn", "learned"))]


def test_parity_moves_the_preferred_share_towards_one_half(llama: Path, data: Path, tmp_path: Path) -> None:
    record = _quantize(llama, data, tmp_path / "out", steps=60, rate=0.05, parity=20.0, anchor=0.0, tau=0.05)
    history = record.training.history
    assert history[-1]["parity"] < 0.5 * history[0]["parity"]


def test_the_checkpoint_holds_what_was_learned(llama: Path, data: Path, tmp_path: Path) -> None:
    _quantize(llama, data, tmp_path / "rtn", method="rtn")
    _quantize(llama, data, tmp_path / "fair")
    codes = [load_file(tmp_path / name / "model.safetensors")["model.layers.0.mlp.down_proj.qweight"] for name in ("rtn", "fair")]
    assert not torch.equal(*codes)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "fair", dtype=torch.float32)
    ours = load(tmp_path / "fair", dtype="float32", device="cpu").network
    ids = torch.arange(2, 20)[None]
    with torch.inference_mode():
        assert torch.allclose(loaded(ids).logits, ours(ids).logits, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "opt"])
def test_other_families_learn_too(family: str, data: Path, tmp_path: Path) -> None:
    base = make_tiny(family, tmp_path / "base")
    record = _quantize(base, data, tmp_path / "out", block_steps=1, steps=2)
    assert record.training.steps == 2


def test_recomputed_activations_give_the_same_weights(llama: Path, data: Path, tmp_path: Path) -> None:
    kept = _quantize(llama, data, tmp_path / "kept")
    again = _quantize(llama, data, tmp_path / "again", recompute=True)
    assert kept.weight_digest == again.weight_digest


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.quantize.methods.learned import training
from stages.quantize.settings import RunSettings
from tests.stages.quantize.methods.learned.test_method import RUN, WAYS, _quantize
real, taken = training.gradients, []
def dying(*arguments):
    taken.append(1)
    if len(taken) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
training.gradients = dying
_quantize(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), **WAYS[1])
"""


def test_killed_and_run_again_it_ends_with_the_same_weights(llama: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = _quantize(llama, data, tmp_path / "whole" / "out", **WAYS[1])
    out = tmp_path / "killed" / "out"
    out.parent.mkdir()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[5])}
    done = subprocess.run([sys.executable, "-c", KILLED, llama, data, out], cwd=tmp_path, env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (out.parent / "work" / "state.safetensors").is_file()
    steps: list[int] = []
    real = training.next_batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "next_batch", lambda *given, **more: (steps.append(given[3].step), real(*given, **more))[1])
        again = _quantize(llama, data, out, **WAYS[1])
    assert steps == [4, 5]
    assert again.weight_digest == whole.weight_digest
    assert again.training == whole.training


@pytest.mark.parametrize(("what", "reason"), [("nan", "not finite"), ("far", "divergence")])
def test_trouble_ends_with_the_last_good_state(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, reason: str
) -> None:
    good = _quantize(llama, data, tmp_path / "good", steps=6)
    real = training.divergence
    calls: list[int] = []

    def broken(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return real(*arguments) * (1.0 if len(calls) < 6 else float("nan") if what == "nan" else 1e4)

    monkeypatch.setattr(training, "divergence", broken)
    record = _quantize(llama, data, tmp_path / "out")
    assert reason in record.training.stopped
    assert record.training.steps == 4  # of the last state that was kept
    assert [row["step"] for row in record.training.history] == [0, 5]  # and the one that went wrong, with what is a number
    assert "parity" in record.training.history[-1]
    assert all(row.status is Status.stopped for row in record.modules)
    assert record.weight_digest != good.weight_digest
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values() if tensor.is_floating_point())


def test_pairs_with_context_are_drawn_where_they_are_asked_for(llama: Path, data: Path, tmp_path: Path) -> None:
    assert [_quantize(llama, data, tmp_path / f"{context}", steps=1, context=context).pairs for context in (False, True)] == [16, 22]


def test_hidden_states_are_part_of_the_loss_where_they_are_asked_for(llama: Path, data: Path, tmp_path: Path) -> None:
    without, with_them = (_quantize(llama, data, tmp_path / str(weight), method="learned", features=weight) for weight in (0.0, 100.0))
    assert [list(row) for row in without.training.history] == [["step", "divergence"]]
    (row,) = with_them.training.history
    assert list(row) == ["step", "divergence", "features"] and row["features"] > 0
    assert with_them.weight_digest != without.weight_digest


def test_blocks_are_distilled_before_the_first_step(llama: Path, data: Path, tmp_path: Path) -> None:
    plain, distilled = (_quantize(llama, data, tmp_path / f"{n}", method="learned", steps=1, rate=0.02, block_steps=n) for n in (0, 20))
    assert distilled.training.history[0]["divergence"] < plain.training.history[0]["divergence"]


def test_the_pairs_that_a_start_was_calibrated_on_are_counted(llama: Path, data: Path, tmp_path: Path) -> None:
    assert _quantize(llama, data, tmp_path / "rtn", method="learned", steps=1).pairs == 0
    assert _quantize(llama, data, tmp_path / "gptq", method="learned", steps=1, start="gptq").pairs == 16


def test_a_start_that_fell_back_is_no_healthy_module(llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ClosedForm.blocks

    def fallen(*arguments: Any) -> list[Block]:
        first, *others = real(*arguments)
        modules = [replace(each, row=each.row.model_copy(update={"status": Status.fallback_rtn})) for each in first.modules]
        return [replace(first, modules=modules), *others]

    monkeypatch.setattr(ClosedForm, "blocks", fallen)
    record = _quantize(llama, data, tmp_path / "out", method="learned", steps=1, start="gptq")
    assert [row.status for row in record.modules] == [Status.fallback_rtn if row.block == 0 else Status.ok for row in record.modules]
    assert any("rounded to nearest where learning started" in note for note in record.notes)


def test_memory_that_runs_out_in_the_start_has_a_remedy(llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> list[Block]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ClosedForm, "blocks", full)
    with pytest.raises(FairgateError, match=r"closed form that it starts from.*\n.*quantize\.low_memory"):
        _quantize(llama, data, tmp_path / "out", method="learned", start="gptq")


def test_no_text_is_named(llama: Path, data: Path, tmp_path: Path) -> None:
    calibration = shutil.copytree(data, tmp_path / "calibration")
    (calibration / "training.jsonl").write_text("")
    with pytest.raises(FairgateError, match=r"no text to learn from[\s\S]*training_texts"):
        _quantize(llama, calibration, tmp_path / "out", method="learned")


def test_trouble_in_a_block_is_named(llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "mse_loss", lambda out, target: (out * torch.nan).sum())
    with pytest.raises(FairgateError, match=r"model\.layers\.0"):
        _quantize(llama, data, tmp_path / "out", block_steps=2)


def test_too_little_memory_names_what_needs_less(llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "gradients", greedy)
    with pytest.raises(FairgateError, match="recompute: true"):
        _quantize(llama, data, tmp_path / "out")


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(FairgateError, match="alpha"):
        _recipe(start="fair_gptq")
    with pytest.raises(FairgateError, match="alpha"):
        _recipe(alpha=0.1)
    with pytest.raises(FairgateError, match="parity"):
        parse_recipe({"method": "learned", "bits": 4, "group_size": 32, "symmetric": True, "parity": 1.0}, where="test")


def test_broken_weights_are_named_before_any_step(llama: Path, data: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in llama.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(FairgateError, match="NaN"):
        _quantize(base, data, tmp_path / "out")


def test_the_record_says_what_was_put_in_front_and_what_was_left_out(llama: Path, data: Path, tmp_path: Path) -> None:
    whole = _quantize(llama, data, tmp_path / "whole")
    lengths = sorted({len(side) for triple in _triples(llama, data) for side in triple.sides})
    less = _quantize(llama, data, tmp_path / "less", pair_tokens=lengths[-2])
    start = next(note for note in whole.notes if "start token" in note)
    assert start in less.notes
    left_out = next(note for note in less.notes if "left out" in note)
    assert left_out.startswith(f"{whole.pairs - less.pairs} of {whole.pairs} pairs")
    assert not any("left out" in note for note in whole.notes)


def _triples(base: Path, data: Path) -> list[Triple]:
    return encode_triples(read_records(Pair, data / "pairs.jsonl"), AutoTokenizer.from_pretrained(base))


def test_steps_that_cannot_change_a_code_are_refused_before_the_first(llama: Path, data: Path, tmp_path: Path) -> None:
    """The weights of this base lie on their grid, so that every offset has half a code to go."""
    base = shutil.copytree(llama, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        codes = torch.randint(0, 8, tensors[name].shape, generator=torch.Generator().manual_seed(0))
        codes[:, ::32], codes[:, 1::32] = 0, 7  # every group reaches from end to end
        tensors[name] = (codes - 4) / 16
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    short: dict[str, Any] = {"steps": 6, "symmetric": False}
    with pytest.raises(FairgateError, match=r"rate 0.1 moves no code: all steps together reach 0.35 codes.*\n.*set `rate` to 0.15 or more"):
        _quantize(base, data, tmp_path / "out", **short)
    for enough in ({"rate": 0.15}, {"block_steps": 3}):
        assert _quantize(base, data, tmp_path / "out", **short, **enough).training.steps == 6
