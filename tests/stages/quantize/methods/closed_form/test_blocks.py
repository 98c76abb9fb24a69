"""Hidden states behind finished blocks are those that the calibration pass had there, to the last
bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stages.quantize.core.compute import Compute
from stages.quantize.methods import METHODS
from stages.quantize.methods.closed_form.blocks import replay
from stages.quantize.methods.shared.modules import packed
from stages.quantize.model.architectures import architecture_of
from stages.quantize.model.streamed import Streamed
from stages.quantize.settings import parse_recipe
from tests.tiny import FAMILIES, make_tiny

ON_A_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=ON_A_GPU)]
RECIPE = {"method": "fair_gptq", "bits": 4, "group_size": 32, "symmetric": True, "alpha": 0.5}
PLAIN = {"method": "gptq", "bits": 4, "group_size": 32, "symmetric": True}
RECIPES: list[dict[str, Any]] = [
    {**PLAIN, "act_order": True, "static_groups": True},
    {**PLAIN, "bits": 3, "symmetric": False, "format": "gptq_v2", "clip": "mse"},
    {**PLAIN, "bits": 2, "group_size": -1, "symmetric": False},
    {**RECIPE, "bits_by_module": {"down_proj": 8, "q_proj": 3}},
    {**RECIPE, "alignment": "group-mean", "modules": "out"},
    {**RECIPE, "collection": "parallel"},
]


def _replayed_equals_quantized(base: Path, family: str, settings: dict[str, Any], few_pairs: Path, compute: Compute) -> None:
    recipe, method = parse_recipe(settings, where="test"), METHODS[settings["method"]]
    source = Streamed(base, architecture_of(family))
    data = method.read(recipe, base, few_pairs, batch_tokens=128, seed=0).data
    assert len(data.batches) > 2
    states: list[list[Tensor]] = []
    weights: list[dict[str, Tensor]] = []
    for block in method.blocks(recipe, source, compute, data):
        states.append([state.clone() for state in block.hidden])
        parts = [packed(module, recipe) for module in block.modules]
        weights.append({name: tensor.cpu() for part in parts for name, tensor in part.items()})
    for blocks, hidden in ((range(2), []), (range(1, 2), states[0])):
        replayed = replay(source, recipe, data, compute, blocks, hidden, weights.__getitem__)
        assert all(torch.equal(state, expected) for state, expected in zip(replayed, states[1], strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_family(family: str, device: str, few_pairs: Path, tmp_path: Path) -> None:
    compute = Compute(torch.device(device), torch.bfloat16 if device == "cuda" else torch.float32)
    _replayed_equals_quantized(make_tiny(family, tmp_path), FAMILIES[family][0], RECIPE, few_pairs, compute)


@pytest.mark.parametrize("settings", RECIPES, ids=str)
def test_of_every_kind_of_grid_and_collection(settings: dict[str, Any], llama: Path, few_pairs: Path) -> None:
    _replayed_equals_quantized(llama, "llama", settings, few_pairs, Compute(torch.device("cpu")))


@pytest.mark.parametrize("how", [{"low_memory": True}, {"waiting": 1}, {"others": (torch.device("cpu"),)}], ids=str)
@pytest.mark.parametrize("device", DEVICES)
def test_wherever_batches_are_kept_and_run(how: dict[str, Any], device: str, llama: Path, few_pairs: Path) -> None:
    how = {**how, **({"others": (torch.device(device),)} if "others" in how else {})}
    _replayed_equals_quantized(llama, "llama", RECIPE, few_pairs, Compute(torch.device(device), **how))
