"""From batches to quantized blocks: one calibration pass through the model, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from fairgate.contracts.gptq_format import NAMES, unpack
from stages.quantize.core.compute import Compute
from stages.quantize.core.hessian import HessianAccumulator
from stages.quantize.methods.base import Block
from stages.quantize.methods.closed_form.calibration import Calibration
from stages.quantize.methods.closed_form.groups import FairnessTerm, GroupSolver
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe
from stages.quantize.methods.shared.modules import grid_of, with_progress
from stages.quantize.model.calibration_pass import BlockInput, SolveGroup, embed, forward_finished, linear, quantize_block, set_weight
from stages.quantize.model.streamed import Streamed


@torch.no_grad()
def quantized_blocks(
    source: Streamed,
    recipe: CalibratedRecipe,
    calibration: Calibration,
    compute: Compute,
    term: FairnessTerm | None = None,
    start: int = 0,
    hidden: Sequence[Tensor] = (),
) -> Iterator[Block]:
    """GPTQ, with the fairness term if there is one, block by block.

    Args:
        start: the first block.
        hidden: the states that enter it, one [rows, L, d] a batch, as an earlier `Block` held them;
            none for the first block.
    """
    block_inputs = inputs_of_block(source, calibration, compute, hidden)
    # A generator keeps its arguments alive, so the old hidden states must not be among them.
    return _pass(source, recipe, calibration, compute, term, start, block_inputs)


@torch.no_grad()
def _pass(
    source: Streamed,
    recipe: CalibratedRecipe,
    calibration: Calibration,
    compute: Compute,
    term: FairnessTerm | None,
    start: int,
    block_inputs: Sequence[BlockInput],
) -> Iterator[Block]:
    for index in with_progress(source, recipe.method, start):
        solver = GroupSolver(source.architecture, recipe, term, compute)
        new_accumulator = accumulators([term], calibration, index, compute.device)
        run_block(source, index, block_inputs, new_accumulator, recipe, solver, compute)
        # No list of the states stays here: off the device the memory of one batch's state serves
        # another's after the next block.
        yield Block(index, solver.modules, [block_input.hidden for block_input in block_inputs])


@torch.no_grad()
def replay(
    source: Streamed,
    recipe: CalibratedRecipe,
    calibration: Calibration,
    compute: Compute,
    blocks: range,
    hidden: Sequence[Tensor],
    packed: Callable[[int], Mapping[str, Tensor]],
) -> list[Tensor]:
    """The hidden states after finished blocks, equal to the last bit to those of the first pass: a
    forward pass each, no Hessians.

    Args:
        blocks: numbers of the finished blocks.
        hidden: the states that enter the first of them; none for block 0.
        packed: the packed tensors of a block, by full name.
    """
    block_inputs = inputs_of_block(source, calibration, compute, hidden)
    for index in blocks:
        with source.loaded_block(index, compute.device, compute.dtype) as block:
            if recipe.collection == "sequential":  # otherwise the next block's input is the unquantized model's
                _put_packed(source, recipe, index, block, packed(index))
            forward_finished(_replicas(block, compute), index, block_inputs)
    return [block_input.hidden for block_input in block_inputs]


def _put_packed(source: Streamed, recipe: CalibratedRecipe, index: int, block: nn.Module, packed: Mapping[str, Tensor]) -> None:
    """Scales are float16 numbers from the start and codes small integers, so unpacking gives the
    very weights that were rounded.
    """
    for name in source.architecture.modules:
        module, full = linear(block, name), f"{source.architecture.blocks}.{index}.{name}"
        parts = {part: packed[f"{full}.{part}"].to(module.weight.device) for part in NAMES}
        set_weight(module, unpack(parts, grid_of(recipe, full).bits, recipe.format))


def inputs_of_block(source: Streamed, calibration: Calibration, compute: Compute, hidden: Sequence[Tensor] = ()) -> list[BlockInput]:
    """What enters a block, batch by batch: `hidden`, or the embeddings if there is none; dealt out
    to the devices.
    """
    block_inputs = embed(source, calibration.batches, compute.device, compute.dtype)
    devices = (compute.device, *compute.others)
    for n, block_input in enumerate(block_inputs):
        if replica := n % len(devices):
            block_inputs[n] = block_input.to(devices[replica], replica)
    if compute.low_memory:
        for block_input in block_inputs:
            state = block_input.hidden.cpu()
            block_input.hidden = state.pin_memory() if compute.device.type == "cuda" else state
    for block_input, state in zip(block_inputs, hidden, strict=bool(hidden)):
        block_input.hidden = state.to(block_input.hidden.device)
    return block_inputs


def run_block(
    source: Streamed,
    index: int,
    block_inputs: Sequence[BlockInput],
    new_accumulator: Callable[[list[str], int], HessianAccumulator],
    recipe: CalibratedRecipe,
    solve_group: SolveGroup,
    compute: Compute,
) -> None:
    """Load block `index` and run all batches through it; `solve_group` gets the Hessians of every
    group.
    """
    with source.loaded_block(index, compute.device, compute.dtype) as block:
        quantize_block(
            _replicas(block, compute),
            index,
            source.architecture.groups,
            block_inputs,
            new_accumulator,
            recipe.text_share,
            solve_group,
            sequential=recipe.collection == "sequential",
            waiting=0 if compute.low_memory else compute.waiting,
        )


def _replicas(block: nn.Module, compute: Compute) -> list[nn.Module]:
    return [block, *(deepcopy(block).to(device) for device in compute.others)]


def accumulators(
    terms: Sequence[FairnessTerm | None], calibration: Calibration, index: int, device: torch.device
) -> Callable[[list[str], int], HessianAccumulator]:
    """Makes the empty accumulator of a group with d inputs; C is kept only where a debiased module
    reads it.
    """
    active = [term for term in terms if term is not None]
    n_groups = calibration.n_groups if any(term.group_mean for term in active) else 0

    def make(group: list[str], d: int) -> HessianAccumulator:
        with_C = any(index in term.blocks and not term.modules.isdisjoint(group) for term in active)
        return HessianAccumulator(d, device, with_C, n_groups)

    return make
