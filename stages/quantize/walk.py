"""Through the model block by block: capture what enters each linear module, one block in float32 on the device at a time.

    embed ──> block 0 ──> block 1 ──> ...
               ├ inputs of q,k,v  -> sums -> quantize q,k,v
               ├ inputs of o      -> sums -> quantize o        (sequential: inputs come from already quantized modules)
               ├ ...
               └ output of the quantized block -> next block's input
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from stages.quantize.collect import Statistics, Sums
from stages.quantize.tokens import Batch


class _Stop(Exception):
    """Ends a forward pass once everything wanted has been seen."""


@dataclass
class Activation:
    """The input of the current block for one batch: hidden [rows, L, d] and the block's other arguments."""

    batch: Batch
    hidden: Tensor
    arguments: dict[str, Any]


def embed(model: nn.Module, blocks: nn.ModuleList, batches: Sequence[Batch], device: torch.device) -> list[Activation]:
    """The first block's input for every batch, in float32 on `device`. Embeddings run (and stay) in float32 on the CPU."""
    inside = {id(p) for p in blocks.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in inside:
            parameter.data = parameter.data.float()
    found: list[Activation] = []

    def catch(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs.pop("hidden_states")
        moved = tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, kwargs)
        found.append(Activation(batch, hidden.to(device), moved))
        raise _Stop

    handle = blocks[0].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        for batch in batches:
            try:
                model(input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False)
            except _Stop:
                continue
    finally:
        handle.remove()
    return found


@contextmanager
def resident(block: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """The block in float32 on the device; afterwards its weights are dropped, so memory holds one block at a time."""
    block.to(device=device, dtype=torch.float32)
    try:
        yield block
    finally:
        for parameter in block.parameters():
            parameter.data = torch.empty(0)


def linear(block: nn.Module, name: str) -> nn.Linear:
    """The linear module `name` of a block."""
    module = block.get_submodule(name)
    assert isinstance(module, nn.Linear), f"{name} is a {type(module).__name__}"
    return module


def forward(block: nn.Module, activation: Activation) -> Tensor:
    """The block's output [rows, L, d]."""
    out = block(activation.hidden, **activation.arguments)
    return out if isinstance(out, Tensor) else out[0]


def collect(
    block: nn.Module, firsts: Sequence[str], activations: Sequence[Activation], sums: Callable[[str, int], Sums], *, whole: bool
) -> tuple[dict[str, Sums], list[Tensor]]:
    """Run the block over all batches and sum up the inputs of the modules named `firsts`.

    Args:
        firsts: one module of each group that shares an input.
        sums: makes empty Sums for (module name, input channels).
        whole: run to the end and return the outputs; otherwise stop after the last module of `firsts`.
    """
    found = {name: sums(name, linear(block, name).in_features) for name in firsts}
    current: Activation = activations[0]
    handles = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            found[name].add(args[0], current.batch)
            if not whole and name == firsts[-1]:
                raise _Stop

        return see

    outputs: list[Tensor] = []
    for name in firsts:
        handles.append(linear(block, name).register_forward_pre_hook(hook(name)))
    try:
        for current in activations:
            try:
                outputs.append(forward(block, current))
            except _Stop:
                continue
    finally:
        for handle in handles:
            handle.remove()
    return found, outputs


SolveGroup = Callable[[int, list[str], nn.Module, Statistics], None]


def sequential(
    block: nn.Module,
    index: int,
    groups: Sequence[list[str]],
    activations: Sequence[Activation],
    sums: Callable[[str, int], Sums],
    text_share: float | None,
    solve: SolveGroup,
) -> list[Tensor]:
    """Quantize a block's groups in the order they run, each on inputs from the groups already quantized; returns the block's outputs."""
    for group in groups:
        found, _ = collect(block, group[:1], activations, sums, whole=False)
        solve(index, group, block, found[group[0]].finish(text_share))
    return [forward(block, activation) for activation in activations]


def parallel(
    block: nn.Module,
    index: int,
    groups: Sequence[list[str]],
    activations: Sequence[Activation],
    sums: Callable[[str, int], Sums],
    text_share: float | None,
    solve: SolveGroup,
) -> list[Tensor]:
    """Quantize all groups of a block on the unquantized model's inputs (one pass); returns the unquantized block's outputs."""
    found, outputs = collect(block, [group[0] for group in groups], activations, sums, whole=True)
    for group in groups:
        solve(index, group, block, found[group[0]].finish(text_share))
    return outputs
