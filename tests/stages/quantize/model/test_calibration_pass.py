from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from fairgate.contracts.records import Pair, Text, read_records
from fairgate.support.errors import FairgateError
from fairgate.support.params import parse
from stages.quantize.core.compute import Compute
from stages.quantize.core.hessian import HessianAccumulator, Hessians
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import encode_pairs, encode_texts, pair_batches, text_batches
from stages.quantize.methods import METHODS
from stages.quantize.methods.base import Block
from stages.quantize.methods.closed_form.calibration import Calibration
from stages.quantize.methods.fair_gptq import FairGptq
from stages.quantize.model.architectures import architecture_of
from stages.quantize.model.calibration_pass import BlockInput, embed, forward, linear, quantize_block
from stages.quantize.model.streamed import Streamed

CPU = torch.device("cpu")
LLAMA = architecture_of("llama")
FAIR = METHODS["fair_gptq"]


@pytest.fixture
def model(llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()


@pytest.fixture
def source(llama: Path) -> Streamed:
    return Streamed(llama, LLAMA)


@pytest.fixture(scope="module")
def data(llama: Path, calibration: Path) -> Calibration:
    tokenizer = AutoTokenizer.from_pretrained(llama)
    pairs = encode_pairs(read_records(Pair, calibration / "pairs.jsonl"), tokenizer, Alignment.aligned, "bias_type")
    texts = encode_texts(read_records(Text, calibration / "text.jsonl"), tokenizer)
    return Calibration([*pair_batches(pairs, Alignment.aligned, 0, 128, {"a": 0, "b": 1}), *text_batches(texts, 0, 128)], 2)


def _accumulator(group: list[str], d: int) -> HessianAccumulator:
    return HessianAccumulator(d, CPU, True)


@torch.no_grad()
def test_activations_at_every_block_are_the_models_own(model: Any, source: Streamed, data: Calibration) -> None:
    batch = data.batches[0]
    theirs = model(batch.ids, attention_mask=batch.mask.long(), output_hidden_states=True).hidden_states[1]
    (block_input, *_rest) = embed(source, data.batches, CPU)
    with source.loaded_block(0, CPU) as block:
        ours = forward(block, block_input, 0)
    assert torch.allclose(ours[batch.mask], theirs[batch.mask], atol=1e-5)


def test_a_model_that_changes_what_passes_between_blocks_is_refused(source: Streamed, data: Calibration) -> None:
    source.blocks[1].register_forward_pre_hook(lambda _, args: (args[0][0] * 1,))
    with pytest.raises(FairgateError, match=r"LlamaForCausalLM.model.layers: the model changes the hidden state between its blocks"):
        embed(source, data.batches, CPU)


@torch.no_grad()
def test_one_pass_equals_replaying_the_block_for_every_group(model: Any, source: Streamed, data: Calibration) -> None:
    """Reference: run the block again for each group, with the groups before it already changed."""

    def change(index: int, group: list[str], block: nn.Module, hessians: Hessians) -> None:
        seen.append(hessians.H)
        for name in group:
            linear(block, name).weight.mul_(0.5)

    block = model.model.layers[0]
    before = {name: linear(block, name).weight.clone() for name in LLAMA.modules}
    block_inputs = embed(source, data.batches, CPU)
    seen: list[Tensor] = []
    quantize_block([block], 0, LLAMA.groups, block_inputs, _accumulator, None, change, sequential=True)
    outputs, block_inputs = [block_input.hidden for block_input in block_inputs], embed(source, data.batches, CPU)

    for name, weight in before.items():
        linear(block, name).weight.copy_(weight)
    for group, H in zip(LLAMA.groups, seen, strict=True):
        accumulator = _accumulator(group, linear(block, group[0]).in_features)
        replayed = _inputs(block, group[0], block_inputs)
        for block_input, X in zip(block_inputs, replayed, strict=True):
            accumulator.add(X, block_input.batch)
        assert torch.equal(accumulator.finish(None).H, H)
        for name in group:
            linear(block, name).weight.mul_(0.5)
    for block_input, output in zip(block_inputs, outputs, strict=True):
        assert torch.equal(forward(block, block_input, 0), output)


def _inputs(block: nn.Module, name: str, block_inputs: list[BlockInput]) -> list[Tensor]:
    inputs: list[Tensor] = []
    handle = linear(block, name).register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    for block_input in block_inputs:
        forward(block, block_input, 0)
    handle.remove()
    return inputs


PARALLEL = {"method": "fair_gptq", "bits": 4, "group_size": 32, "symmetric": True, "collection": "parallel"}


def _codes(block: Block) -> dict[str, Tensor]:
    return {module.row.name: module.rounded.codes for module in block.modules}


@pytest.mark.parametrize(("how", "waiting"), [({}, None), ({"waiting": 1}, 1), ({"low_memory": True}, 0)], ids=str)
def test_a_batch_that_waits_runs_the_block_once_another_for_every_group(
    how: dict[str, Any], waiting: int | None, source: Streamed, data: Calibration
) -> None:
    seen: list[int] = []
    recipe = parse(FairGptq, {**PARALLEL, "alpha": 0.5, "collection": "sequential"}, where="test")
    blocks = FAIR.blocks(recipe, source, Compute(CPU, **how), data)
    handle = source.blocks[0].input_layernorm.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    next(blocks)
    handle.remove()
    once = len(data.batches) if waiting is None else waiting
    assert len(seen) == once + (len(LLAMA.groups) + 1) * (len(data.batches) - once)


@pytest.mark.parametrize("collection", ["sequential", "parallel"])
def test_batches_shared_out_give_the_same_weights(collection: str, source: Streamed, data: Calibration) -> None:
    recipe = parse(FairGptq, {**PARALLEL, "alpha": 0.5, "collection": collection}, where="test")
    assert len(data.batches) > 2
    alone = list(FAIR.blocks(recipe, source, Compute(CPU), data))
    shared = list(FAIR.blocks(recipe, source, Compute(CPU, others=(CPU,)), data))
    for ours, theirs in zip(shared, alone, strict=True):
        for ours_module, theirs_module in zip(ours.modules, theirs.modules, strict=True):
            assert ours_module.row.loss == pytest.approx(theirs_module.row.loss, rel=0.02)
        # Sums run in another order, so a weight on the boundary of two codes may fall either way.
        # In later blocks of a sequential pass this one weight has changed all inputs.
        if collection == "parallel" or ours.index == 0:
            for name, codes in _codes(ours).items():
                assert (codes != _codes(theirs)[name]).float().mean() < 0.02


@pytest.mark.parametrize("collection", ["sequential", "parallel"])
@pytest.mark.parametrize("how", [{"low_memory": True}, {"waiting": 1}], ids=str)
def test_low_memory_changes_nothing(how: dict[str, Any], collection: str, source: Streamed, data: Calibration) -> None:
    recipe = parse(FairGptq, {**PARALLEL, "alpha": 0.5, "collection": collection}, where="test")
    fast = list(FAIR.blocks(recipe, source, Compute(CPU), data))
    low = list(FAIR.blocks(recipe, source, Compute(CPU, **how), data))
    for ours, theirs in zip(low, fast, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.hidden, theirs.hidden, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(_codes(ours).values(), _codes(theirs).values(), strict=True))
