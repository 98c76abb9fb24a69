"""The methods by name: how a recipe turns a model and calibration data into quantized modules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fairgate.contracts.gptq_format import NAMES, unpack
from fairgate.contracts.records import Status
from fairgate.support.errors import FairgateError
from stages.quantize.core.columns import round_nearest
from stages.quantize.core.fair import FETCH_AGAIN, require_finite
from stages.quantize.core.hessian import FairnessWeight, HessianAccumulator, Hessians
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import Batch
from stages.quantize.methods.groups import FairnessTerm, QuantizedModule, located, module_row, solver
from stages.quantize.model.architectures import debiased_blocks, debiased_modules
from stages.quantize.model.calibration_pass import (
    BlockInput,
    SolveGroup,
    embed,
    forward_finished,
    linear,
    quantize_block,
    set_weight,
    weight_of,
)
from stages.quantize.model.streamed import Streamed
from stages.quantize.settings import Compute, FairGptq, Gptq, Rtn


@dataclass(frozen=True)
class Calibration:
    """Batches of pairs and of text, and the number of groups that the group-mean constraint averages over."""

    batches: list[Batch]
    n_groups: int


@dataclass(frozen=True)
class Block:
    """A quantized block: its number, its modules, and every batch's hidden state after it (none where no data are used)."""

    index: int
    modules: list[QuantizedModule]
    hidden: list[Tensor]


def rtn(source: Streamed, recipe: Rtn, start: int = 0) -> Iterator[Block]:
    """Round every linear module of every block, from block `start`, to nearest."""
    architecture = source.architecture
    for index in _progress(source, "rtn", start):
        done = []
        with source.loaded_block(index, torch.device("cpu")) as block:
            for name in architecture.modules:
                W = weight_of(linear(block, name)).detach()
                full = f"{architecture.blocks}.{index}.{name}"
                with located(full):
                    require_finite(W, "the weight", FETCH_AGAIN)
                rounded = round_nearest(W, recipe.grid(full))
                row = module_row(full, index, architecture.kind(name), W, W, rounded.Q, Status.ok, None, None, None, None)
                done.append(QuantizedModule(rounded, row))
        yield Block(index, done, [])


@torch.no_grad()
def gptq(
    source: Streamed, recipe: Gptq, calibration: Calibration, compute: Compute, start: int = 0, hidden: Sequence[Tensor] | None = None
) -> Iterator[Block]:
    """GPTQ, or Fair-GPTQ if the recipe says so, block by block.

    Args:
        start, hidden: go on with block `start` from the hidden states before it, one [rows, L, d] a batch, as an earlier `Block` held them.
    """
    term = _fairness_term(source, recipe, calibration, compute)
    block_inputs = _embed(source, calibration, compute)
    _begin(block_inputs, hidden or [])
    # A generator holds its arguments as long as it runs: not these states too.
    return _calibration_pass(source, recipe, calibration, compute, start, term, block_inputs)


@torch.no_grad()
def _calibration_pass(
    source: Streamed,
    recipe: Gptq,
    calibration: Calibration,
    compute: Compute,
    start: int,
    term: FairnessTerm | None,
    block_inputs: Sequence[BlockInput],
) -> Iterator[Block]:
    for index in _progress(source, recipe.method, start):
        done: list[QuantizedModule] = []
        solve_group = solver(source.architecture, recipe, term, done, compute)
        new_accumulator = _accumulators([term], calibration, index, compute.device)
        _run(source, index, block_inputs, new_accumulator, recipe, solve_group, compute)
        # No list of them stays here: off the device the memory of one batch's serves another's after the next block.
        yield Block(index, done, [block_input.hidden for block_input in block_inputs])


@torch.no_grad()
def replay(
    source: Streamed,
    recipe: Gptq,
    calibration: Calibration,
    compute: Compute,
    blocks: range,
    hidden: Sequence[Tensor],
    packed: Callable[[int], Mapping[str, Tensor]],
) -> list[Tensor]:
    """The hidden states behind finished blocks, to the last bit those that `gptq` had there: a forward pass through each, no sums.

    Args:
        blocks: their numbers. hidden: the states before the first, none for block 0. packed: the packed tensors of a block by full name.
    """
    block_inputs = _embed(source, calibration, compute)
    _begin(block_inputs, hidden)
    for index in blocks:
        with source.loaded_block(index, compute.device, compute.dtype) as block:
            if recipe.collection == "sequential":  # otherwise the next block's input is that of the unquantized model
                _put_packed(source, recipe, index, block, packed(index))
            forward_finished(_replicas(block, compute), index, block_inputs)
    return [block_input.hidden for block_input in block_inputs]


def _put_packed(source: Streamed, recipe: Gptq, index: int, block: nn.Module, packed: Mapping[str, Tensor]) -> None:
    """Scales are float16 numbers from the start and codes small integers, so what is unpacked is what was put there before packing."""
    for name in source.architecture.modules:
        module, full = linear(block, name), f"{source.architecture.blocks}.{index}.{name}"
        parts = {part: packed[f"{full}.{part}"].to(module.weight.device) for part in NAMES}
        set_weight(module, unpack(parts, recipe.grid(full).bits, recipe.format))


@torch.no_grad()
def sweep(source: Streamed, recipes: Sequence[Gptq], calibration: Calibration, compute: Compute) -> Iterator[list[Block]]:
    """Several recipes from one pass over the calibration data: per block, the result of each, equal to that of `gptq` alone.

    They may differ in weight, mode, modules, blocks, damping and grid. Inputs come from the unquantized model, so that they are the same
    for all. Raises: FairgateError where a recipe collects sequentially, or they differ in what is collected.
    """
    collected = {(recipe.collection, recipe.calibration, recipe.text_share, getattr(recipe, "alignment", None)) for recipe in recipes}
    if len(collected) != 1 or recipes[0].collection != "parallel":
        remedy = "give all of them `collection: parallel` and the same calibration, text_share and alignment"
        raise FairgateError("these recipes cannot share one pass over the data", where="recipes", remedy=remedy)
    terms = [_fairness_term(source, recipe, calibration, compute) for recipe in recipes]
    block_inputs = _embed(source, calibration, compute)
    for index in _progress(source, "sweep", 0):
        done: list[list[QuantizedModule]] = [[] for _ in recipes]
        solvers = [solver(source.architecture, *each, compute) for each in zip(recipes, terms, done, strict=True)]

        def solve_all(index: int, group: list[str], block: nn.Module, hessians: Hessians, solvers: Sequence[SolveGroup] = solvers) -> None:
            for solve_group in solvers:
                solve_group(index, group, block, hessians)

        _run(source, index, block_inputs, _accumulators(terms, calibration, index, compute.device), recipes[0], solve_all, compute)
        outputs = [block_input.hidden for block_input in block_inputs]
        yield [Block(index, modules, outputs) for modules in done]


def _embed(source: Streamed, calibration: Calibration, compute: Compute) -> list[BlockInput]:
    block_inputs = embed(source, calibration.batches, compute.device, compute.dtype)
    devices = (compute.device, *compute.others)
    for n, block_input in enumerate(block_inputs):
        if replica := n % len(devices):
            block_inputs[n] = block_input.to(devices[replica], replica)
    if compute.low_memory:
        for block_input in block_inputs:
            hidden = block_input.hidden.cpu()
            block_input.hidden = hidden.pin_memory() if compute.device.type == "cuda" else hidden
    return block_inputs


def _run(
    source: Streamed,
    index: int,
    block_inputs: Sequence[BlockInput],
    new_accumulator: Callable[[list[str], int], HessianAccumulator],
    recipe: Gptq,
    solve_group: SolveGroup,
    compute: Compute,
) -> None:
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


def _begin(block_inputs: Sequence[BlockInput], hidden: Sequence[Tensor]) -> None:
    """Put hidden states in front of a block; none at all leaves the first block's."""
    for block_input, state in zip(block_inputs, hidden, strict=bool(hidden)):
        block_input.hidden = state.to(block_input.hidden.device)


def _progress(source: Streamed, name: str, start: int) -> Iterable[int]:
    """The numbers of the blocks behind a bar with the time left; in a log file it moves a few times a minute."""
    count = len(source.blocks)
    interval = 0.5 if sys.stderr.isatty() else 15
    return tqdm(range(start, count), desc=name, unit="block", initial=start, total=count, mininterval=interval)


def _fairness_term(source: Streamed, recipe: Gptq, calibration: Calibration, compute: Compute) -> FairnessTerm | None:
    """The fairness term of a recipe, or None where it would be zero: alpha = 0 is GPTQ bit for bit."""
    if not isinstance(recipe, FairGptq) or not (recipe.alpha or recipe.rho):
        return None
    term = FairnessTerm(
        debiased_modules(source.architecture, recipe.modules),
        debiased_blocks(len(source.blocks), recipe.blocks),
        FairnessWeight(alpha=recipe.alpha, rho=recipe.rho),
        recipe.mode,
        recipe.alignment is Alignment.group_mean,
    )
    if recipe.rho is None or recipe.rho_scope == "module":
        return term
    traces = trace_sums(source, term, calibration, compute, recipe)
    return replace(term, weight=FairnessWeight(factor=recipe.rho * traces[0] / traces[1]))


@torch.no_grad()
def trace_sums(source: Streamed, term: FairnessTerm, calibration: Calibration, compute: Compute, recipe: Gptq) -> tuple[float, float]:
    """Sums of tr H and tr C over the debiased modules, with the unquantized model's inputs (for rho with global scope)."""
    totals = [0.0, 0.0]

    def add(index: int, group: list[str], block: nn.Module, hessians: Hessians) -> None:
        count = len(term.modules.intersection(group)) if index in term.blocks else 0
        if count and hessians.C is not None:
            totals[0] += count * float(hessians.H.trace())
            totals[1] += count * float(hessians.C.trace())

    block_inputs = _embed(source, calibration, compute)
    unquantized = recipe.model_copy(update={"collection": "parallel"})
    for index in range(len(source.blocks)):
        new_accumulator = _accumulators([term], calibration, index, compute.device)
        _run(source, index, block_inputs, new_accumulator, unquantized, add, compute)
    if totals[1] == 0:
        raise FairgateError("all pair differences are zero, so rho has no scale", remedy="use another alignment, or alpha")
    return totals[0], totals[1]


def _accumulators(
    terms: Sequence[FairnessTerm | None], calibration: Calibration, index: int, device: torch.device
) -> Callable[[list[str], int], HessianAccumulator]:
    """Makes the empty accumulator of a group with d inputs; C is kept only where a debiased module reads it."""
    active = [term for term in terms if term is not None]
    n_groups = calibration.n_groups if any(term.group_mean for term in active) else 0

    def make(group: list[str], d: int) -> HessianAccumulator:
        with_C = any(index in term.blocks and not term.modules.isdisjoint(group) for term in active)
        return HessianAccumulator(d, device, with_C, n_groups)

    return make


def select(recipe: Rtn, pairs: Sequence[Batch], texts: Sequence[Batch], n_groups: int) -> Calibration:
    """The batches that a recipe calibrates on."""
    wanted = recipe.calibration if isinstance(recipe, Gptq) else "none"
    batches = [*(pairs if wanted in ("mixed", "pairs") else ()), *(texts if wanted in ("mixed", "text") else ())]
    return Calibration(batches, n_groups)
