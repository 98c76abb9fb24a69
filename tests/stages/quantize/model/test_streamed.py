from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from fairgate.support.errors import BadRecord
from stages.quantize.model.architectures import architecture_of
from stages.quantize.model.calibration_pass import linear
from stages.quantize.model.streamed import Streamed
from tests.tiny import make_tiny_llama

CPU = torch.device("cpu")
LLAMA = architecture_of("llama")


def with_data(source: Streamed) -> list[str]:
    return [name for name, parameter in source.model.named_parameters() if parameter.device.type != "meta"]


def test_memory_holds_one_block_at_a_time(llama: Path) -> None:
    source = Streamed(llama, LLAMA)
    assert with_data(source) == []
    with source.non_block_weights(CPU):
        assert with_data(source) == ["model.embed_tokens.weight", "model.norm.weight"]
    with source.loaded_block(1, CPU) as block:
        assert {name.split(".")[2] for name in with_data(source)} == {"1"}
        linear(block, "mlp.down_proj").weight.data = torch.zeros(1)
    assert with_data(source) == []


@torch.no_grad()
def test_a_block_computes_what_the_loaded_model_computes(llama: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    source = Streamed(llama, LLAMA)
    for index in (1, 0, 1):
        with source.loaded_block(index, CPU) as block:
            ours, theirs = dict(block.named_parameters()), dict(whole.model.layers[index].named_parameters())
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.equal(a, b) for a, b in zip(source.model.buffers(), whole.buffers(), strict=True))


def test_a_checkpoint_without_the_prefix_is_read_by_the_models_names(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    tensors = load_file(llama / "model.safetensors")
    save_file({name.removeprefix("model."): tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    assert {name for name, _ in Streamed(tmp_path, LLAMA).tensors()} == set(tensors)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    assert json.loads((base / "config.json").read_text())["num_hidden_layers"] == 2
    source = Streamed(base, LLAMA)
    with source.loaded_block(0, CPU):
        pass
    with pytest.raises(BadRecord, match=r"no tensor model\.layers\.1\.mlp\.up_proj\.weight"), source.loaded_block(1, CPU):
        pass
