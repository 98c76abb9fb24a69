"""Every grid and format, written and read back by the evaluation, transformers and gptqmodel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gptqmodel import BACKEND, GPTQModel
from transformers import AutoModelForCausalLM, GPTQConfig

from fairgate.contracts.gptq_format import bits_of
from stages.evaluate.model import kernel_difference, load
from stages.quantize.settings import RunSettings, parse_recipe
from stages.quantize.stage import quantize
from tests.tiny import SENTENCES, make_tiny_llama

MIXED = {"bits_by_module": {"down_proj": 8, "layers.1.mlp.*": 3}}
# The kernels compute in float16 or bfloat16: 2 % of the logits' range, as in test_stage.py.
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for groups of 256."""
    return make_tiny_llama(tmp_path_factory.mktemp("wide"), layers=1, width=256)


def _write(base: Path, calibration: Path, folder: Path, changes: dict[str, Any]) -> Path:
    data = {"method": "gptq", "bits": 4, "group_size": 32, "symmetric": True, **changes}
    run = RunSettings(device="cpu", seed=0, batch_tokens=1024)
    quantize("test", parse_recipe(data, where="test"), run, base, calibration, folder / "out", folder / "work")
    return folder / "out"


def _logits(folder: Path, network: Any = None) -> torch.Tensor:
    """Of another reader's network, or of the dequantized weights as the evaluation scores them."""
    model = load(folder, dtype="float32", device="cpu")
    ids = model.tokenizer(SENTENCES[0], return_tensors="pt").input_ids
    with torch.no_grad():
        return (network or model.network)(input_ids=ids).logits.float()


def _through_transformers(folder: Path) -> Any:
    """With the kernel that takes every group size; test_stage.py runs the default one."""
    kernel = GPTQConfig(bits=4, backend="gptq_torch")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16, quantization_config=kernel).eval()


def _assert_same(folder: Path, network: Any) -> None:
    expected = _logits(folder)
    assert (_logits(folder, network) - expected).abs().max() < TOLERANCE * expected.abs().max()


@pytest.mark.parametrize(
    "changes",
    [
        {"group_size": 16, "symmetric": False},
        {"group_size": 64, "bits": 3},
        {"group_size": 128, "symmetric": False, "format": "gptq_v2", "bits": 2},
        {"group_size": 256, "static_groups": True, "act_order": True},
        {"group_size": -1, "clip": "mse", "bits": 8, "format": "gptq_v2"},
        {"group_size": -1, "method": "rtn"},
    ],
    ids=str,
)
def test_transformers_computes_with_the_weights_that_are_scored(
    changes: dict[str, Any], wide: Path, calibration: Path, tmp_path: Path
) -> None:
    out = _write(wide, calibration, tmp_path, changes)
    _assert_same(out, _through_transformers(out))


@pytest.mark.parametrize(
    "changes", [{}, {"format": "gptq_v2", "symmetric": False}, MIXED, {**MIXED, "symmetric": False, "format": "gptq_v2"}], ids=str
)
def test_gptqmodel_computes_with_the_weights_that_are_scored(
    changes: dict[str, Any], llama: Path, calibration: Path, tmp_path: Path
) -> None:
    out = _write(llama, calibration, tmp_path, changes)
    _assert_same(out, GPTQModel.load(str(out), backend=BACKEND.GPTQ_TORCH, device="cpu", dtype=torch.float16).model.eval())


@pytest.mark.parametrize("changes", [MIXED, {"group_size": 16}, {"group_size": -1}], ids=str)
def test_the_packed_kernel_is_compared_where_the_default_one_cannot_run(
    changes: dict[str, Any], llama: Path, calibration: Path, tmp_path: Path
) -> None:
    out = _write(llama, calibration, tmp_path, changes)
    assert 0 < kernel_difference(load(out, dtype="float32", device="cpu"), out) < 0.02


def test_bits_by_module_reach_config_and_weights(llama: Path, calibration: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    out = _write(llama, calibration, tmp_path, MIXED)
    tensors = load_file(out / "model.safetensors")
    dynamic = json.loads((out / "config.json").read_text())["quantization_config"]["dynamic"]
    for name in (name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")):
        bits = 8 if name.endswith("down_proj") else 3 if ".1.mlp." in name else 4
        assert bits_of(name, 4, dynamic) == bits
        assert tensors[f"{name}.qweight"].shape[0] * 32 == tensors[f"{name}.g_idx"].shape[0] * bits


def test_a_zero_point_of_zero_is_written_and_read_in_the_second_format(llama: Path, calibration: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    base.mkdir()
    for file in llama.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.0.mlp.down_proj"
    tensors[f"{name}.weight"] = tensors[f"{name}.weight"].abs()
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    out = _write(base, calibration, tmp_path, {"method": "rtn", "symmetric": False, "format": "gptq_v2"})
    assert load_file(out / "model.safetensors")[f"{name}.qzeros"].abs().max() == 0
    _assert_same(out, _through_transformers(out))
