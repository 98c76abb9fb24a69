"""From a model on disk to modules on their grids, by learned rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM

from fairgate.contracts.records import ModuleRow, Status
from fairgate.support.errors import FairgateError
from fairgate.support.library_errors import translated
from fairgate.support.log import log
from stages.quantize.core.compute import Compute
from stages.quantize.methods.base import Block, QuantizedModule
from stages.quantize.methods.learned.data import Draw
from stages.quantize.methods.learned.distillation import distil_blocks
from stages.quantize.methods.learned.offsets import Offsets, attach
from stages.quantize.methods.learned.settings import FairRound, Learned
from stages.quantize.methods.learned.training import State, recompute, reproducible, train
from stages.quantize.methods.shared.modules import changes, grid_of
from stages.quantize.model.calibration_pass import Linear, linear
from stages.quantize.model.streamed import Streamed

_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # cuDNN's plans anew for every shape
BLOCK_TEXTS = 4  # steps' worth of passages that the blocks are distilled on

Keep = Callable[[Mapping[str, Tensor], Mapping[str, Any]], None]
Restored = Callable[[], tuple[dict[str, Tensor], dict[str, Any]] | None]


@dataclass(frozen=True)
class Outcome:
    """The blocks, and the state that the steps ended in."""

    blocks: list[Block]
    state: State


def learn(
    source: Streamed,
    recipe: Learned,
    fair: FairRound | None,
    begun: Sequence[QuantizedModule],
    draw: Draw,
    compute: Compute,
    keep: Keep,
    restored: Restored,
) -> Outcome:
    """Learn the rounding of every linear module of every block.

    Args:
        fair: settings of the pairs' loss; None means general text alone.
        begun: modules in the closed form that the offsets start from; one that is not among them
            starts from the nearest codes.
        draw: what the steps see.
        keep: keeps a state now and then: tensors and values.
        restored: the state that was kept last; None means there is none.
    Returns:
        Outcome; `state.stopped` says why steps were left out, and every module's status is then
        `stopped`; else it is that of its start.
    """
    device, prefix = compute.device, f"{source.architecture.blocks}."
    with translated("the model cannot be loaded", where=str(source.base), remedy="run `dvc repro fetch`"):
        model: Any = AutoModelForCausalLM.from_pretrained(source.base, dtype=compute.dtype, trust_remote_code=False)
    model.to(device).eval()
    model.requires_grad_(False)
    blocks: Any = model.get_submodule(source.architecture.blocks)
    linears = [{f"{prefix}{i}.{name}": linear(block, name) for name in source.architecture.modules} for i, block in enumerate(blocks)]
    grids = {name: grid_of(recipe, name) for modules in linears for name in modules}
    start = {module.row.name: module.rounded for module in begun}
    offsets = attach(linears, start, grids, torch.float32 if compute.dtype == torch.float32 else torch.float16)

    _require_reach(recipe, offsets)

    def keep_state(state: State) -> None:
        keep(*_stored(offsets, state))

    if recipe.recompute:
        recompute(blocks)
    with reproducible(), sdpa_kernel(_ATTENTION) if device.type == "cuda" else nullcontext():
        state = _restore(offsets, restored(), device)
        if state is None:
            state = State()
            if recipe.block_steps:
                rows = draw.texts(0, BLOCK_TEXTS * recipe.texts).to(device)
                distil_blocks(model, blocks, offsets, prefix, rows, recipe)
                keep_state(state)
        train(model, offsets, draw, recipe, fair, state, device, keep_state)
    if reason := state.stopped:
        for module_offsets in offsets:
            module_offsets.reset()
        history = state.history  # also of the steps that are lost: what grew in them is why
        state = _restore(offsets, restored(), device) or State()
        state.stopped, state.history = reason, history
        log.warning("%s; the weights are those after step %d, the last good state", reason, state.step)
    statuses = {module.row.name: module.row.status for module in begun}
    return Outcome(_rounded_blocks(source, linears, offsets, dict.fromkeys(grids, Status.stopped) if state.stopped else statuses), state)


def _require_reach(recipe: Learned, offsets: Sequence[Offsets]) -> None:
    """Raise FairgateError if the steps are too short to change a single code: they would take
    minutes and leave every code as it is.
    """
    least = min(part.least_move() for part in offsets)
    if recipe.reach < least:
        rate = recipe.rate * least / recipe.reach
        digit = 10.0 ** (math.floor(math.log10(rate)) - 1)
        raise FairgateError(
            f"rate {recipe.rate} moves no code: all steps together reach {recipe.reach:.3g} codes, the first needs {least:.3g}",
            where=f"recipe: {recipe.method}",
            remedy=f"set `rate` to {math.ceil(rate / digit) * digit:.2g} or more, or take more `steps`",
        )


def _stored(offsets: Sequence[Offsets], state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {f"{part.names[0]}.{name}": getattr(part, name) for part in offsets for name in ("V", "clip")}
    if state.shares is not None:
        tensors["shares"] = state.shares
    return tensors, {"step": state.step, "history": state.history}


def _restore(offsets: Sequence[Offsets], stored: tuple[dict[str, Tensor], dict[str, Any]] | None, device: torch.device) -> State | None:
    """Put a stored state into the offsets; None means there is none."""
    if stored is None:
        return None
    tensors, values = stored
    for part in offsets:
        part.V.copy_(tensors[f"{part.names[0]}.V"])
        part.clip.copy_(tensors[f"{part.names[0]}.clip"])
    shares = tensors.get("shares")
    return State(values["step"], None if shares is None else shares.to(device), values["history"])


def _rounded_blocks(
    source: Streamed, linears: Sequence[Mapping[str, Linear]], offsets: Sequence[Offsets], statuses: Mapping[str, Status]
) -> list[Block]:
    of_module = {name: part for part in offsets for name in part.names}
    blocks = []
    for index, modules in enumerate(linears):
        quantized = []
        for name, short in zip(modules, source.architecture.modules, strict=True):
            W, rounded = of_module[name].weight(name).float(), of_module[name].rounded(name)
            status, kind = statuses.get(name, Status.ok), source.architecture.kind(short)
            row = ModuleRow(name=name, block=index, kind=kind, status=status, **changes(W, rounded.Q))
            quantized.append(QuantizedModule(rounded, row))
        blocks.append(Block(index, quantized))
    return blocks
