"""Every supported family, tiny: quantized weights against the fp64 reference, the checkpoint loaded
back, its logits compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from fairgate.contracts.gptq_format import GPTQMODEL_ONLY, NAMES, unpack
from fairgate.contracts.records import Pair, Status, read_records
from fairgate.support.params import parse
from stages.evaluate import model as evaluated
from stages.quantize.core import reference
from stages.quantize.core.fair import objective
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import difference_rows, encode_pairs
from stages.quantize.methods.fair_gptq import FairGptq
from stages.quantize.methods.shared.modules import grid_of
from stages.quantize.model.architectures import architectures
from stages.quantize.model.calibration_pass import linear, set_weight, weight_of
from stages.quantize.settings import RunSettings
from stages.quantize.stage import quantize
from tests.tiny import FAMILIES, SENTENCES, make_tiny

RUN = RunSettings(device="cpu", seed=0, batch_tokens=256)
ALPHA = 0.5
RECIPE = parse(
    FairGptq,
    {"method": "fair_gptq", "bits": 4, "group_size": 32, "symmetric": True, "alpha": ALPHA, "calibration": "pairs"},
    where="test",
)


def test_every_family_of_the_table_is_tested() -> None:
    assert {model_type for model_type, _ in FAMILIES.values()} == {name for entry in architectures() for name in entry.model_types}


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_quantized_as_the_reference_says_and_loads_back(family: str, few_pairs: Path, tmp_path: Path) -> None:
    base, out = make_tiny(family, tmp_path / "base"), tmp_path / "out"
    record = quantize("test", RECIPE, RUN, base, few_pairs, out, tmp_path / "work")
    assert {row.status for row in record.modules} == {Status.ok}
    packed = packed_weights(out)
    assert {row.name for row in record.modules} == packed.keys()

    dense = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).eval()
    _compare_with_reference(dense, record.architecture, packed, base, few_pairs)  # leaves the packed weights in `dense`
    expected = logits(dense, out)
    unpacked = evaluated.load(out, dtype="float32", device="cpu")
    assert torch.allclose(logits(unpacked.network, out), expected, atol=1e-4 * float(expected.abs().max()))
    if FAMILIES[family][0] in GPTQMODEL_ONLY:
        assert evaluated.kernel_difference(unpacked, out) < evaluated.KERNEL_TOLERANCE
        return
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    # The packed CPU kernel computes in its own precision (bfloat16 activations at worst): 2 % of
    # the logits' range.
    assert (logits(loaded, out) - expected).abs().max() < 0.02 * (expected.max() - expected.min())


def packed_weights(folder: Path) -> dict[str, Tensor]:
    """Dequantized W [r, d] of every packed module."""
    tensors = load_file(folder / "model.safetensors")
    modules = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    return {module: unpack({part: tensors[f"{module}.{part}"] for part in NAMES}, 4) for module in modules}


@torch.no_grad()
def logits(model: Any, folder: Path) -> Tensor:
    return model(AutoTokenizer.from_pretrained(folder)(SENTENCES[0], return_tensors="pt").input_ids).logits.float()


@torch.no_grad()
def _compare_with_reference(model: Any, name: str, packed: dict[str, Tensor], base: Path, calibration: Path) -> None:
    """Group by group in float64: inputs of whole unpadded sentences through the whole model, H and
    C by their definition, OBQ.
    """
    (architecture,) = [entry for entry in architectures() if entry.name == name]
    tokenizer = AutoTokenizer.from_pretrained(base)
    pairs = encode_pairs(read_records(Pair, calibration / "pairs.jsonl"), tokenizer, Alignment.aligned, "bias_type")
    flips = []
    for index, block in enumerate(model.get_submodule(architecture.blocks)):
        for group in architecture.groups:
            X = [[_input(model, linear(block, group[0]), side) for side in (pair.a, pair.b)] for pair in pairs]
            H = sum(2 * x.T @ x for sides in X for x in sides) / (2 * len(pairs))
            D = [
                torch.stack([sum(w * sides[side][at] for side, at, w in row) for row in difference_rows(pair.a, pair.b, Alignment.aligned)])
                for pair, sides in zip(pairs, X, strict=True)
            ]
            B = 2 * ALPHA / len(pairs) * sum(d.T @ d for d in D)
            modules = [linear(block, leaf) for leaf in group]
            parts = [packed[f"{architecture.blocks}.{index}.{leaf}"].double() for leaf in group]
            W, Q = torch.cat([weight_of(module) for module in modules]), torch.cat(parts)
            target, A = reference.target_and_hessian(W, H, B, "exact", RECIPE.damping)
            slow = reference.gptq(target, A, grid_of(RECIPE, ""))
            # A weight that lies on a rounding boundary may fall either way; the objective may not.
            flips.append((Q - slow).abs().gt(1e-4).double().mean())
            assert objective(W, Q, H, B) == pytest.approx(float(objective(W, slow, H, B)), rel=0.02), group
            for module, part in zip(modules, parts, strict=True):
                set_weight(module, part)
    assert sum(flips) / len(flips) < 0.02


def _input(model: Any, module: torch.nn.Module, ids: list[int]) -> Tensor:
    """What enters `module`, [L, d]."""
    found: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: found.append(args[0].reshape(-1, args[0].shape[-1])))
    model(torch.tensor([ids]))
    handle.remove()
    return found[0]
