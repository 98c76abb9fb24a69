from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention

from fairgate.model_folder.architecture import read_config, skeleton
from fairgate.support.errors import FairgateError
from fairgate.support.params import parse
from stages.quantize.core.pairs import Batch
from stages.quantize.methods.rtn import Rtn
from stages.quantize.model import tracer
from stages.quantize.model.architectures import architecture_of
from stages.quantize.model.calibration_pass import BlockInput, set_weight
from stages.quantize.run.preflight import preflight
from stages.quantize.settings import RunSettings
from stages.quantize.stage import quantize
from tests.stages.quantize.test_families import RECIPE, logits, packed_weights
from tests.tiny import FAMILIES, make_tiny

RTN = {"method": "rtn", "bits": 4, "group_size": 32, "symmetric": True}


def _preflight(base: Path, **changes: Any) -> None:
    preflight(base, parse(Rtn, {**RTN, **changes}, where="test"))


@pytest.mark.parametrize("family", FAMILIES)
def test_tracing_finds_what_the_table_says(family: str, tmp_path: Path) -> None:
    base, model_type = make_tiny(family, tmp_path), FAMILIES[family][0]
    model = skeleton(read_config(base))
    traced = tracer.trace(base, model, model_type)
    table = architecture_of(model_type, {name for name, _ in model.get_submodule(traced.blocks)[0].named_modules()})
    assert (traced.blocks, traced.groups, traced.out) == (table.blocks, table.groups, table.out)
    with pytest.raises(FairgateError, match=r"group_size 256 does not divide the (64|128) inputs[\s\S]*that fit this layer: 16, 32, 64"):
        _preflight(base, group_size=256)


def test_a_family_that_is_not_in_the_table_is_traced_and_loads_back(calibration: Path, tmp_path: Path) -> None:
    base, out = make_tiny("mpt", tmp_path / "base"), tmp_path / "out"
    record = quantize("test", RECIPE, RunSettings(device="cpu", seed=0, batch_tokens=256), base, calibration, out, tmp_path / "work")
    assert record.architecture == "mpt"
    assert any("'mpt' is not in the table" in note and "'ffn.up_proj'" in note for note in record.notes)
    assert {row.kind for row in record.modules} == {"Wqkv", "out_proj", "up_proj", "down_proj"}
    dense = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    for name, W in packed_weights(out).items():
        set_weight(dense.get_submodule(name), W)
    expected = logits(dense, out)
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert (logits(loaded, out) - expected).abs().max() < 0.02 * (expected.max() - expected.min())


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("bert", "a token sees later ones"),
        ("lfm2", "block 1 has other linear modules than block 0"),
        ("mamba", "mixer.dt_proj runs 0 times in a block instead of once"),
    ],
)
def test_what_cannot_be_proven_is_refused_by_name(family: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(FairgateError, match=f"'{family}' is not in the table, and tracing it failed: {why}"):
        _preflight(make_tiny(family, tmp_path))


def test_blocks_that_do_not_agree_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = LlamaAttention.__init__

    def second_block_copies_an_input(self: Any, config: Any, layer_idx: int) -> None:
        original(self, config, layer_idx)
        if layer_idx == 1:
            self.k_proj.register_forward_pre_hook(lambda _, args: (args[0].clone(),))

    monkeypatch.setattr(LlamaAttention, "__init__", second_block_copies_an_input)
    base = make_tiny("llama", tmp_path)
    with pytest.raises(FairgateError, match=r"do not agree on which linear modules share an input"):
        tracer.trace(base, skeleton(read_config(base)), "llama")


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "gpt_oss", "granitemoe"])
def test_mixture_of_experts_is_refused_by_name_from_the_configuration_alone(model_type: str, tmp_path: Path) -> None:
    AutoConfig.for_model(model_type, num_hidden_layers=1, hidden_size=64, intermediate_size=64, vocab_size=64).save_pretrained(tmp_path)
    with pytest.raises(FairgateError, match=rf"'{model_type}' is a Mixture-of-Experts model \(model.layers.0[\s\S]*take a dense decoder"):
        _preflight(tmp_path)


def test_multimodal_wrapper_is_refused_by_name_from_the_configuration_alone(tmp_path: Path) -> None:
    AutoConfig.for_model("gemma3").save_pretrained(tmp_path)
    with pytest.raises(FairgateError, match=r"'gemma3' is a multimodal model[\s\S]*gemma3_text"):
        _preflight(tmp_path)


def test_a_checkpoint_that_nothing_loads_is_refused(tmp_path: Path) -> None:
    base = make_tiny("gpt2", tmp_path)
    with pytest.raises(FairgateError, match=r"no library loads a packed 'gpt2' with symmetric: false[\s\S]*gptq_v2"):
        _preflight(base, symmetric=False)
    _preflight(base, symmetric=False, format="gptq_v2")


def test_a_variant_with_more_linear_modules_than_its_entry_is_refused(tmp_path: Path) -> None:
    base = make_tiny("gpt2", tmp_path, add_cross_attention=True)
    with pytest.raises(FairgateError, match=r"transformer.h.0: linear modules are not those of 'gpt2'.*crossattention.c_attn"):
        _preflight(base)


class _Toy(nn.Module):
    """A block whose forward is given."""

    def __init__(self, compute: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def _changed_in_place(toy: _Toy, x: Tensor) -> Tensor:
    y = x + 1
    a = toy.a(y)
    return a + toy.b(y.mul_(2)) + toy.c(y)


@torch.no_grad()
@pytest.mark.parametrize(
    ("compute", "groups", "out"),
    [
        (lambda toy, x: x + toy.c(toy.a(x) * toy.b(x)), [["a", "b"], ["c"]], ["c"]),
        (lambda toy, x: x + toy.c(toy.a(x) * toy.b(x.clone())), [["a"], ["b"], ["c"]], ["c"]),
        (_changed_in_place, [["a"], ["b", "c"]], ["a", "b", "c"]),
    ],
    ids=["shared", "equal numbers, other memory", "changed in place"],
)
def test_a_group_is_the_very_same_input(compute: Callable[[Any, Tensor], Tensor], groups: list[list[str]], out: list[str]) -> None:
    toy, mask = _Toy(compute), torch.ones(2, 3, dtype=torch.bool)
    block_input = BlockInput(Batch(mask.long(), mask, mask, 2), torch.randn(2, 3, 4), [((), {})])
    calls = tracer._watch(toy, ["a", "b", "c"], block_input, 0)
    assert tracer._groups(calls) == groups
    assert tracer._writers(toy, calls, block_input, 0) == out
