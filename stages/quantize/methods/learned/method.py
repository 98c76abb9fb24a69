"""From a model on disk to modules on their grids, by learned rounding."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM

from fairgate.contracts.records import Status
from fairgate.support.log import log
from stages.quantize.methods.closed_form import Block
from stages.quantize.methods.groups import QuantizedModule, module_row
from stages.quantize.methods.learned.data import Draw
from stages.quantize.methods.learned.offsets import Offsets, attach
from stages.quantize.methods.learned.training import State, distil_blocks, recompute, reproducible, train
from stages.quantize.model.calibration_pass import Linear, linear
from stages.quantize.model.streamed import Streamed
from stages.quantize.run.resume import Progress
from stages.quantize.settings import Compute, Learned

# Read when the first matrix product runs on a GPU; without it the products of one run are not those of the next.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # cuDNN's plans anew for every shape
BLOCK_TEXTS = 4  # steps' worth of passages that the blocks are distilled on


@dataclass(frozen=True)
class Outcome:
    """The blocks, and the state that the steps ended in."""

    blocks: list[Block]
    state: State


def learned(source: Streamed, recipe: Learned, begun: Sequence[QuantizedModule], draw: Draw, compute: Compute, done: Progress) -> Outcome:
    """Learn the rounding of every linear module of every block.

    Args:
        begun: modules in the closed form that the offsets start from; one that is not among them starts from the nearest codes.
        draw: what the steps see. done: keeps a state now and then.
    Returns:
        Outcome; `state.stopped` says why steps were left out, and every module's status is then `stopped`; else it is that of its start.
    """
    device, prefix = compute.device, f"{source.architecture.blocks}."
    model: Any = AutoModelForCausalLM.from_pretrained(source.base, dtype=compute.dtype, trust_remote_code=False)
    model.to(device).eval()
    model.requires_grad_(False)
    blocks: Any = model.get_submodule(source.architecture.blocks)
    linears = [{f"{prefix}{i}.{name}": linear(block, name) for name in source.architecture.modules} for i, block in enumerate(blocks)]
    grids = {name: recipe.grid(name) for modules in linears for name in modules}
    offsets = attach(
        linears,
        {module.row.name: module.rounded for module in begun},
        grids,
        torch.float32 if compute.dtype == torch.float32 else torch.float16,
    )
    if recipe.recompute:
        recompute(blocks)
    with reproducible(), sdpa_kernel(_ATTENTION) if device.type == "cuda" else nullcontext():
        state = _restored(offsets, done, device)
        if state is None:
            state = State()
            if recipe.block_steps:
                rows = draw.texts(0, BLOCK_TEXTS * recipe.texts).to(device)
                distil_blocks(model, blocks, offsets, prefix, rows, recipe)
                _keep(offsets, state, done)
        train(model, offsets, draw, recipe, state, device, lambda state: _keep(offsets, state, done))
    if reason := state.stopped:
        for each in offsets:
            each.reset()
        history = state.history  # also of the steps that are lost: what grew in them is why
        state = _restored(offsets, done, device) or State()
        state.stopped, state.history = reason, history
        log.warning("%s; the weights are those after step %d, the last good state", reason, state.step)
    statuses = {module.row.name: module.row.status for module in begun}
    return Outcome(_blocks(source, linears, offsets, dict.fromkeys(grids, Status.stopped) if state.stopped else statuses), state)


def _keep(offsets: Sequence[Offsets], state: State, done: Progress) -> None:
    tensors = {f"{each.names[0]}.{part}": getattr(each, part) for each in offsets for part in ("V", "clip")}
    if state.shares is not None:
        tensors["shares"] = state.shares
    done.keep(tensors, {"step": state.step, "history": state.history})


def _restored(offsets: Sequence[Offsets], done: Progress, device: torch.device) -> State | None:
    if (found := done.kept()) is None:
        return None
    tensors, values = found
    for each in offsets:
        each.V.copy_(tensors[f"{each.names[0]}.V"])
        each.clip.copy_(tensors[f"{each.names[0]}.clip"])
    shares = tensors.get("shares")
    return State(values["step"], None if shares is None else shares.to(device), values["history"])


def _blocks(
    source: Streamed, linears: Sequence[Mapping[str, Linear]], offsets: Sequence[Offsets], statuses: Mapping[str, Status]
) -> list[Block]:
    of_module = {name: each for each in offsets for name in each.names}
    found = []
    for index, modules in enumerate(linears):
        done = []
        for name, short in zip(modules, source.architecture.modules, strict=True):
            W, rounded = of_module[name].weight(name).float(), of_module[name].rounded(name)
            status = statuses.get(name, Status.ok)
            row = module_row(name, index, source.architecture.kind(short), W, W, rounded.Q, status, None, None, None, None)
            done.append(QuantizedModule(rounded, row))
        found.append(Block(index, done, []))
    return found
