"""The weights that are read are those that transformers loads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fairgate.model_folder.architecture import read_config, skeleton
from fairgate.model_folder.names import output_is_embedding, stored_names, with_ties
from fairgate.model_folder.weights import quantized_tensors, read_weights, weight_digest
from fairgate.support.errors import BadRecord, FairgateError, MissingFile
from tests.fairgate.model_folder.conftest import edit, put, shard, tensors
from tests.tiny import FAMILIES, make_tiny


def by_model_name(folder: Path) -> dict[str, torch.Tensor]:
    """Every parameter as this package reads it."""
    weights, model = read_weights(folder), skeleton(read_config(folder))
    names = with_ties(stored_names(weights, model), model)
    with weights.opened() as opened:
        # GPT-NeoX stores its output layer under another name than transformers gives it.
        return {name: opened.tensor(names[name]) for name, _ in model.named_parameters() if name in names or name != "lm_head.weight"}


def assert_as_transformers(folder: Path) -> None:
    loaded = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters(remove_duplicate=False))
    read = by_model_name(folder)
    assert read.keys() <= loaded.keys()
    assert all(torch.equal(read[name], loaded[name].data) for name in read)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_the_one_that_transformers_loads(family: str, tmp_path: Path) -> None:
    assert_as_transformers(make_tiny(family, tmp_path / "model"))


def test_what_the_index_does_not_list_is_ignored_by_name(model: Path) -> None:
    """An older upload of three shards lies beside the two of today."""
    state = tensors(model)
    shard(model)
    names, digest = sorted(state), weight_digest(model)
    for number in range(3):
        put(model, {name: torch.randn_like(state[name]) for name in names[number::3]}, f"model-0000{number + 1}-of-00003.safetensors")
    weights = read_weights(model)
    assert weights.files == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert weights.ignored == tuple(f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3))
    assert weight_digest(model) == digest
    assert weights.bytes == sum((model / name).stat().st_size for name in weights.files)
    assert_as_transformers(model)


def test_a_tied_model_may_store_its_output_layer_alone(model: Path) -> None:
    state = tensors(model)
    state["lm_head.weight"] = state.pop("model.embed_tokens.weight")
    put(model, state)
    assert_as_transformers(model)
    assert output_is_embedding(read_weights(model), skeleton(read_config(model)))


@pytest.mark.parametrize(("shift", "tied"), [(0.0, True), (1.0, False)])
def test_a_stored_output_layer_is_the_embedding_only_if_it_equals_it(model: Path, shift: float, tied: bool) -> None:
    state = tensors(model)
    put(model, state | {"lm_head.weight": state["model.embed_tokens.weight"] + shift})
    loaded = AutoModelForCausalLM.from_pretrained(model)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    assert output_is_embedding(read_weights(model), skeleton(read_config(model))) == tied


def test_a_tensor_under_two_names_is_refused(model: Path) -> None:
    """transformers takes the one, and a reader that goes by the other name the other."""
    state = tensors(model)
    name = "model.layers.0.self_attn.q_proj.weight"
    put(model, state | {name.removeprefix("model."): state[name] + 1})
    with pytest.raises(BadRecord, match=f"tensor {name} stands twice"):
        stored_names(read_weights(model), skeleton(read_config(model)))


def test_an_index_beside_the_single_file_is_refused(model: Path) -> None:
    """transformers loads the single file alone, whatever the index adds."""
    state = tensors(model)
    put(model, {"lm_head.weight": state["model.embed_tokens.weight"] + 1}, "extra.safetensors")
    files = dict.fromkeys(state, "model.safetensors") | {"lm_head.weight": "extra.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    with pytest.raises(FairgateError, match="two models"):
        read_weights(model)


def test_a_missing_index_is_named(model: Path) -> None:
    shard(model, index=False)
    with pytest.raises(MissingFile, match=r"and no model\.safetensors\.index\.json(?s:.*)which shards belong together"):
        read_weights(model)


def test_two_models_in_one_folder_are_refused(model: Path) -> None:
    """transformers would take the single file, and other tools the shards."""
    state = tensors(model)
    shard(model)
    put(model, state)
    with pytest.raises(FairgateError, match="two models"):
        read_weights(model)


def test_index_and_shards_must_agree(model: Path) -> None:
    files = shard(model)
    first, index = sorted(files)[0], model / "model.safetensors.index.json"
    edit(index, weight_map={**files, first: "model-00002-of-00002.safetensors"})
    with pytest.raises(BadRecord, match=f"tensor {first} is in model-00001-of-00002.safetensors, the index says model-00002"):
        read_weights(model)
    edit(index, weight_map={**files, "new": "model-00002-of-00002.safetensors"})
    with pytest.raises(BadRecord, match="tensor new is in no shard"):
        read_weights(model)
    edit(index, weight_map={name: file for name, file in files.items() if name != first})
    with pytest.raises(BadRecord, match="the index says nothing of it"):
        read_weights(model)


def test_a_tensor_in_two_shards_is_refused(model: Path) -> None:
    state = tensors(model)
    files = shard(model)
    first = sorted(files)[0]
    second = {name: state[name] for name in files if files[name].startswith("model-00002")}
    put(model, second | {first: state[first] + 1}, "model-00002-of-00002.safetensors")
    with pytest.raises(BadRecord, match=f"tensor {first} stands in"):
        read_weights(model)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "weights.bin", "..\\m.safetensors"])
def test_an_index_reaches_nothing_outside_the_folder(model: Path, name: str) -> None:
    files = shard(model)
    edit(model / "model.safetensors.index.json", weight_map=dict.fromkeys(files, name))
    with pytest.raises(BadRecord, match="no shard of this folder"):
        read_weights(model)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": ["a"]}'])
def test_an_index_that_names_no_files_is_refused(model: Path, content: str) -> None:
    shard(model)
    (model / "model.safetensors.index.json").write_text(content)
    with pytest.raises(BadRecord, match="weight_map"):
        read_weights(model)


def test_an_index_needs_its_metadata(model: Path) -> None:
    shard(model)
    edit(model / "model.safetensors.index.json", metadata=...)
    with pytest.raises(BadRecord, match="metadata"):
        read_weights(model)


@pytest.mark.parametrize("length", [0, 4, 8, 100, 5000])
def test_a_file_that_is_cut_short_is_named(model: Path, length: int) -> None:
    os.truncate(model / "model.safetensors", length)
    with pytest.raises(BadRecord, match=r"owner/name/model\.safetensors: not a whole safetensors file") as caught:
        read_weights(model, where="owner/name", remedy="copy it again")
    assert caught.value.remedy == "copy it again"


def test_a_tensor_that_is_not_stored_is_named(model: Path) -> None:
    with read_weights(model).opened() as opened, pytest.raises(BadRecord, match=r"no tensor model\.nothing"):
        opened.tensor("model.nothing")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.layers.0.mlp.up_proj.weight_scale", torch.ones(1)),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", torch.ones(1)),
        ("model.layers.0.mlp.up_proj.weight_packed", torch.ones(4, dtype=torch.int32)),
        ("model.layers.0.mlp.up_proj.qweight", torch.ones(4, dtype=torch.int32)),
        ("model.layers.0.mlp.up_proj.weight.absmax", torch.ones(4)),
        ("model.layers.0.mlp.up_proj.weight", torch.ones(4, dtype=torch.uint8)),
        ("model.layers.0.mlp.up_proj.weight", torch.ones(4).to(torch.float8_e4m3fn)),
    ],
)
def test_tensors_that_are_quantized_are_seen(model: Path, name: str, value: torch.Tensor) -> None:
    put(model, tensors(model) | {name: value})
    assert [error.where.split(", ")[-1] for error in quantized_tensors(read_weights(model))] == [name]


def test_old_buffers_are_no_sign_of_quantization(model: Path) -> None:
    buffers = {"model.layers.0.attn.bias": torch.ones(2, 2, dtype=torch.bool), "model.position_ids": torch.arange(4)}
    put(model, tensors(model) | buffers)
    assert list(quantized_tensors(read_weights(model))) == []


def test_index_is_not_read_as_something_else(model: Path) -> None:
    shard(model)
    (model / "model.safetensors.index.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(BadRecord, match=r"index\.json"):
        read_weights(model)
    assert json.loads((model / "config.json").read_text())["model_type"] == "llama"
