"""The calibration pass: all batches go through the model block by block.

What enters each linear module is summed on the way. One block at a time is on the device, in
bfloat16 on a GPU by default and in float32 on a CPU; sums and rounding are always float32.

embed ──> block 0 ──> block 1 ──> ...
           ├ all batches reach q,k,v  -> sums of their inputs -> quantize q,k,v -> go on
           ├ all batches reach o      -> sums of their inputs -> quantize o     -> go on
           ├ ...
           └ output of the quantized block: the next block's input
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from typing import Any

import greenlet
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fairgate.support.errors import FairgateError
from stages.quantize.core.hessian import HessianAccumulator, Hessians
from stages.quantize.core.pairs import Batch
from stages.quantize.model.streamed import Streamed

Linear = nn.Linear | Conv1D  # Conv1D is GPT-2's linear layer: its weight is stored [in, out]


class _LastBlock(Exception):
    """Ends a forward pass at the last block."""


@dataclass
class BlockInput:
    """The input of the current block for one batch.

    batch: token ids and masks.
    hidden: [rows, L, d], the hidden state before the block.
    arguments: the other arguments of every block, positional and by name. Blocks differ in them
        where a model mixes full and sliding attention (Gemma 2 and 3, some Qwen2).
    replica: which replica of the block the batch runs through, if several GPUs share the batches.
    """

    batch: Batch
    hidden: Tensor
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]
    replica: int = 0

    def to(self, device: torch.device, replica: int) -> BlockInput:
        """The input on another device, for that device's replica of the block."""
        return BlockInput(self.batch.to(device), self.hidden.to(device), send_to_device(self.arguments, device), replica)


def embed(source: Streamed, batches: Sequence[Batch], device: torch.device, dtype: torch.dtype = torch.float32) -> list[BlockInput]:
    """The first block's input for every batch, on `device`.

    Raises:
        FairgateError: the model does more between two blocks than hand on the hidden state.
    """
    with source.non_block_weights(device, dtype) as model:
        return [_embed(source, model, batch.to(device)) for batch in batches]


def _embed(source: Streamed, model: nn.Module, batch: Batch) -> BlockInput:
    """Run the model with blocks that hand on their input and keep their other arguments."""
    hidden_states: list[Tensor] = []
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def hand_on(*args: Any, **kwargs: Any) -> tuple[Tensor]:
        hidden, *others = args if args else (kwargs.pop("hidden_states"),)
        # Some models expect a tensor from a block, others a tuple with the tensor first. A tuple
        # serves both.
        hidden_states.append(hidden[0] if isinstance(hidden, tuple) else hidden)
        arguments.append((tuple(others), kwargs))
        if len(hidden_states) == len(source.blocks):
            raise _LastBlock
        return (hidden_states[-1],)

    for block in source.blocks:
        block.forward = hand_on
    try:
        with suppress(_LastBlock):
            model(input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False)
    finally:
        for block in source.blocks:
            del block.forward
    if len(hidden_states) < len(source.blocks) or any(hidden is not hidden_states[0] for hidden in hidden_states):
        raise FairgateError(
            "the model changes the hidden state between its blocks, or leaves blocks out",
            where=f"{type(model).__name__}.{source.architecture.blocks}",
            remedy="such a model cannot be quantized block by block",
        )
    return BlockInput(batch, hidden_states[0], arguments)


def linear(block: nn.Module, name: str) -> Linear:
    """The linear module `name` of a block."""
    module = block.get_submodule(name)
    assert isinstance(module, Linear), f"{name} is a {type(module).__name__}"
    return module


def weight_of(module: Linear) -> Tensor:
    """The weight as W [r, d], outputs by inputs. For a Conv1D this is a transposed view."""
    return module.weight.T if isinstance(module, Conv1D) else module.weight


def set_weight(module: Linear, W: Tensor) -> None:
    """Make W [r, d] the module's weight, in its own layout."""
    module.weight.data = (W.T.contiguous() if isinstance(module, Conv1D) else W).to(module.weight.dtype)


def forward(block: nn.Module, block_input: BlockInput, index: int) -> Tensor:
    """The output [rows, L, d] of block number `index`.

    It lies on the batch's device, wherever the input is kept.
    """
    args, kwargs = block_input.arguments[index]
    out = block(block_input.hidden.to(block_input.batch.ids.device, non_blocking=True), *args, **kwargs)
    return out if isinstance(out, Tensor) else out[0]


SolveGroup = Callable[[int, list[str], nn.Module, Hessians], None]


def quantize_block(
    blocks: Sequence[nn.Module],
    index: int,
    groups: Sequence[list[str]],
    block_inputs: Sequence[BlockInput],
    new_accumulator: Callable[[list[str], int], HessianAccumulator],
    text_share: float | None,
    solve: SolveGroup,
    *,
    sequential: bool,
    waiting: int | None = None,
) -> None:
    """Quantize one block in one forward pass over all batches.

    Every batch runs in a greenlet that pauses when it reaches the first module of a group. Once all
    batches wait there, their inputs are summed, the group is quantized, and they go on with the
    quantized weights. Every module thus sees truly sequential inputs, and no block runs twice.
    Afterwards every BlockInput holds the output of the block.

    Args:
        blocks: the block, and its replicas on other GPUs. Each sums up its own batches; the first
            is quantized, and the others follow it.
        index: number of the block.
        groups: names of linear modules by shared input, in the order they run.
        block_inputs: one per batch.
        new_accumulator: makes the empty HessianAccumulator of a group, given the number of inputs.
        text_share: the weight of general text in H. None means its share of the tokens.
        solve: quantizes a group in place from its Hessians.
        sequential: quantize each group before the next one sees its inputs. Otherwise all groups
            are quantized at the end, on the inputs (and outputs) of the unquantized block.
        waiting: how many batches, from the first, wait in a greenlet. None means all. The others
            run the block from its start for every group: more passes, the memory of one batch, and
            the same result.
    """

    def pause(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        greenlet.getcurrent().parent.switch(args[0])

    block, *replicas = blocks
    handles = [linear(replica, group[0]).register_forward_pre_hook(pause) for replica in blocks for group in groups]
    inputs_at = _inputs_at(blocks, index, block_inputs, len(block_inputs) if waiting is None else waiting)
    unsolved: list[tuple[list[str], Hessians]] = []
    try:
        for number, group in enumerate(groups):
            accumulators = [new_accumulator(group, weight_of(linear(block, group[0])).shape[1]) for _ in blocks]
            for X, block_input in zip(inputs_at(number), block_inputs, strict=True):
                accumulators[block_input.replica].add(X, block_input.batch)
            for accumulator in accumulators[1:]:
                accumulators[0].join(accumulator)
            hessians = accumulators[0].finish(text_share)
            del accumulators, X
            if sequential:
                solve(index, group, block, hessians)
                for replica, name in product(replicas, group):
                    linear(replica, name).weight.data.copy_(linear(block, name).weight)
            else:
                unsolved.append((group, hessians))
        for out, block_input in zip(inputs_at(len(groups)), block_inputs, strict=True):
            _advance(block_input, out)
    finally:
        for handle in handles:
            handle.remove()
    for group, hessians in unsolved:
        solve(index, group, block, hessians)


def forward_finished(blocks: Sequence[nn.Module], index: int, block_inputs: Sequence[BlockInput]) -> None:
    """Run all batches through a block that is quantized already.

    Every BlockInput then holds, to the last bit, what `quantize_block` left there.
    """
    for block_input in block_inputs:
        _advance(block_input, forward(blocks[block_input.replica], block_input, index))


def _advance(block_input: BlockInput, out: Tensor) -> None:
    """Replace the input by the output. Off the device it lies in page-locked memory.

    The memory of the input is then free for the next batch's output.
    """
    if out.device != block_input.hidden.device:
        out = torch.empty_like(block_input.hidden, pin_memory=True).copy_(out)
    block_input.hidden = out


# Given the number of a pause, the group's input of every batch. One more than the last pause is the
# end of the block, and gives its outputs.
InputsAt = Callable[[int], Iterator[Tensor]]


def _inputs_at(blocks: Sequence[nn.Module], index: int, block_inputs: Sequence[BlockInput], waiting: int) -> InputsAt:
    """The first `waiting` batches wait in the block, the others replay it."""
    staged, replayed = _staged(blocks, index, block_inputs[:waiting]), _replayed(blocks, index, block_inputs[waiting:])
    return lambda number: chain(staged(number), replayed(number))


def _staged(blocks: Sequence[nn.Module], index: int, block_inputs: Sequence[BlockInput]) -> InputsAt:
    """Every batch goes on from where it waits."""
    runners = [greenlet.greenlet(partial(forward, blocks[block_input.replica], block_input, index)) for block_input in block_inputs]
    return lambda number: (runner.switch() for runner in runners)


def _replayed(blocks: Sequence[nn.Module], index: int, block_inputs: Sequence[BlockInput]) -> InputsAt:
    """Every batch runs alone from the start of the block, and is dropped at the pause."""

    def inputs_at(number: int) -> Iterator[Tensor]:
        for block_input in block_inputs:
            runner = greenlet.greenlet(partial(forward, blocks[block_input.replica], block_input, index))
            for _ in range(number):
                runner.switch()
            yield runner.switch()
            if not runner.dead:
                runner.throw()

    return inputs_at
