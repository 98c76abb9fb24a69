from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.common.params import parse
from stages.common.records import Pair, Text, read_records
from stages.quantize.architectures import architecture_of
from stages.quantize.collect import Statistics, Strength, Sums
from stages.quantize.methods import Calibration, gptq
from stages.quantize.objective import Mode, solve
from stages.quantize.settings import FairGptq
from stages.quantize.streamed import Streamed
from stages.quantize.tokens import Alignment, encode_pairs, encode_texts, pair_batches, text_batches
from stages.quantize.walk import Activation, embed, forward, linear, run_block

CPU = torch.device("cpu")
LLAMA = architecture_of("llama")


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


def _sums(group: list[str], d: int) -> Sums:
    return Sums(d, CPU, True)


@torch.no_grad()
def test_activations_at_every_block_are_the_models_own(model: Any, source: Streamed, data: Calibration) -> None:
    batch = data.batches[0]
    theirs = model(batch.ids, attention_mask=batch.mask.long(), output_hidden_states=True).hidden_states[1]
    (activation, *_rest) = embed(source, data.batches, CPU)
    with source.resident(0, CPU) as block:
        ours = forward(block, activation)
    assert torch.allclose(ours[batch.mask], theirs[batch.mask], atol=1e-5)


@torch.no_grad()
def test_one_pass_equals_replaying_the_block_for_every_group(model: Any, source: Streamed, data: Calibration) -> None:
    """Reference: run the block again for each group, with the groups before it already changed."""

    def change(index: int, group: list[str], block: nn.Module, statistics: Statistics) -> None:
        seen.append(statistics.H)
        for name in group:
            linear(block, name).weight.mul_(0.5)

    block = model.model.layers[0]
    before = {name: linear(block, name).weight.clone() for name in LLAMA.modules}
    activations = embed(source, data.batches, CPU)
    seen: list[Tensor] = []
    outputs = run_block(block, 0, LLAMA.groups, activations, _sums, None, change, sequential=True)

    for name, weight in before.items():
        linear(block, name).weight.copy_(weight)
    for group, H in zip(LLAMA.groups, seen, strict=True):
        sums = _sums(group, linear(block, group[0]).in_features)
        replayed = _inputs(block, group[0], activations)
        for activation, X in zip(activations, replayed, strict=True):
            sums.add(X, activation.batch)
        assert torch.equal(sums.finish(None).H, H)
        for name in group:
            linear(block, name).weight.mul_(0.5)
    for activation, output in zip(activations, outputs, strict=True):
        assert torch.equal(forward(block, activation), output)


def _inputs(block: nn.Module, name: str, activations: list[Activation]) -> list[Tensor]:
    found: list[Tensor] = []
    handle = linear(block, name).register_forward_pre_hook(lambda module, args: found.append(args[0]))
    for activation in activations:
        forward(block, activation)
    handle.remove()
    return found


@torch.no_grad()
def test_sweep_from_one_parallel_pass_equals_separate_parallel_runs(model: Any, source: Streamed, data: Calibration) -> None:
    stored: dict[tuple[int, str], Statistics] = {}

    def keep(index: int, group: list[str], block: nn.Module, statistics: Statistics) -> None:
        stored[index, group[0]] = statistics

    weights = {(i, name): linear(block, name).weight.clone() for i, block in enumerate(model.model.layers) for name in LLAMA.modules}
    activations = embed(source, data.batches, CPU)
    for index, block in enumerate(model.model.layers):
        outputs = run_block(block, index, LLAMA.groups, activations, _sums, None, keep, sequential=False)
        for activation, hidden in zip(activations, outputs, strict=True):
            activation.hidden = hidden

    settings = {"method": "fair_gptq", "bits": 4, "group_size": 32, "symmetric": True, "collection": "parallel"}
    for alpha in (0.1, 0.7):
        recipe = parse(FairGptq, {**settings, "alpha": alpha}, where="test")
        separate = {module.row.name: module.rounded.codes for block in gptq(source, recipe, data, CPU) for module in block.modules}
        for (index, first), statistics in stored.items():
            group = next(group for group in LLAMA.groups if group[0] == first)
            W = torch.cat([weights[index, name] for name in group])
            swept = solve(W, statistics.H, Strength(alpha=alpha).matrix(statistics), recipe.grid, Mode.exact, recipe.damping).rounded.codes
            expected = torch.cat([separate[f"model.layers.{index}.{name}"] for name in group])
            assert torch.equal(swept, expected)
