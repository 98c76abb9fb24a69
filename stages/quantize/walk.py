"""Through the model block by block: capture what enters each linear module, one block in float32 on the device at a time.

embed ──> block 0 ──> block 1 ──> ...
           ├ all batches reach q,k,v  -> sums of their inputs -> quantize q,k,v -> go on
           ├ all batches reach o      -> sums of their inputs -> quantize o     -> go on
           ├ ...
           └ output of the quantized block: the next block's input
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import greenlet
import torch
from torch import Tensor, nn

from stages.quantize.collect import Statistics, Sums
from stages.quantize.streamed import Streamed
from stages.quantize.tokens import Batch


class _Stop(Exception):
    """Ends a forward pass at the first block."""


@dataclass
class Activation:
    """The input of the current block for one batch: hidden [rows, L, d] and the block's other arguments."""

    batch: Batch
    hidden: Tensor
    arguments: dict[str, Any]


def embed(source: Streamed, batches: Sequence[Batch], device: torch.device, dtype: torch.dtype = torch.float32) -> list[Activation]:
    """The first block's input for every batch, on `device`."""
    found: list[Activation] = []

    def catch(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs.pop("hidden_states")
        found.append(Activation(batch, hidden, kwargs))
        raise _Stop

    handle = source.blocks[0].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        with source.surroundings(device, dtype) as model:
            for batch in (batch.to(device) for batch in batches):
                try:
                    model(input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False)
                except _Stop:
                    continue
    finally:
        handle.remove()
    return found


def linear(block: nn.Module, name: str) -> nn.Linear:
    """The linear module `name` of a block."""
    module = block.get_submodule(name)
    assert isinstance(module, nn.Linear), f"{name} is a {type(module).__name__}"
    return module


def forward(block: nn.Module, activation: Activation) -> Tensor:
    """The block's output [rows, L, d], on the batch's device wherever its input is kept."""
    out = block(activation.hidden.to(activation.batch.ids.device), **activation.arguments)
    return out if isinstance(out, Tensor) else out[0]


SolveGroup = Callable[[int, list[str], nn.Module, Statistics], None]


def run_block(
    block: nn.Module,
    index: int,
    groups: Sequence[list[str]],
    activations: Sequence[Activation],
    sums: Callable[[list[str], int], Sums],
    text_share: float | None,
    solve: SolveGroup,
    *,
    sequential: bool,
    replay: bool = False,
) -> list[Tensor]:
    """Quantize one block in one forward pass over all batches; returns its outputs.

    Every batch runs in a greenlet that pauses when it reaches the first module of a group. Once all batches wait there, their inputs
    are summed, the group is quantized, and they go on with the quantized weights: true-sequential without replaying the block.
    Not sequential: all groups are quantized at the end, on the inputs (and outputs) of the unquantized block.

    Args:
        groups: names of linear modules by shared input, in the order they run. sums: makes empty Sums for a group and its number of inputs.
        solve: quantizes a group in place from its Statistics.
        replay: no batch waits; each runs the block from its start for every group. More passes, the memory of one batch, the same result.
    """

    def pause(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        greenlet.getcurrent().parent.switch(args[0])

    handles = [linear(block, group[0]).register_forward_pre_hook(pause) for group in groups]
    reach = _replayed(block, activations) if replay else _staged(block, activations)
    waiting: list[tuple[list[str], Statistics]] = []
    try:
        for number, group in enumerate(groups):
            total = sums(group, linear(block, group[0]).in_features)
            for X, activation in zip(reach(number), activations, strict=True):
                total.add(X, activation.batch)
            statistics = total.finish(text_share)
            del total, X
            if sequential:
                solve(index, group, block, statistics)
            else:
                waiting.append((group, statistics))
        outputs = [out.to(activation.hidden.device) for out, activation in zip(reach(len(groups)), activations, strict=True)]
    finally:
        for handle in handles:
            handle.remove()
    for group, statistics in waiting:
        solve(index, group, block, statistics)
    return outputs


Reach = Callable[[int], Iterator[Tensor]]  # number of a pause (or one more: the end) -> what every batch holds there


def _staged(block: nn.Module, activations: Sequence[Activation]) -> Reach:
    """All batches go on from where they wait."""
    runners = [greenlet.greenlet(partial(forward, block, activation)) for activation in activations]
    return lambda number: (runner.switch() for runner in runners)


def _replayed(block: nn.Module, activations: Sequence[Activation]) -> Reach:
    """Every batch alone from the start of the block, and dropped where it was wanted."""

    def reach(number: int) -> Iterator[Tensor]:
        for activation in activations:
            runner = greenlet.greenlet(partial(forward, block, activation))
            for _ in range(number):
                runner.switch()
            yield runner.switch()
            if not runner.dead:
                runner.throw()

    return reach
