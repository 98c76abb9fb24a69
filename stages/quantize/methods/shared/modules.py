"""Round the modules of a block, and describe what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from fairgate.contracts.gptq_format import LOWEST_ZERO, bits_of, pack
from fairgate.contracts.records import ModuleRow, Status
from fairgate.support.errors import FairgateError
from stages.quantize.core.columns import Rounded
from stages.quantize.core.fair import FETCH_AGAIN, NotFinite, require_finite
from stages.quantize.core.grid import Grid
from stages.quantize.methods.base import Block, GridRecipe, QuantizedModule
from stages.quantize.model.calibration_pass import linear, weight_of
from stages.quantize.model.streamed import Streamed


def packed(module: QuantizedModule, recipe: GridRecipe) -> dict[str, Tensor]:
    """qweight, qzeros, scales and g_idx of a module, each under its full name."""
    name, rounded = module.row.name, module.rounded
    bits = grid_of(recipe, name).bits
    tensors = pack(rounded.codes, rounded.scale, rounded.zero.to(torch.int32), bits, recipe.group_size, recipe.format)
    return {f"{name}.{part}": tensor for part, tensor in tensors.items()}


def grid_of(recipe: GridRecipe, module: str, *, static: bool = False) -> Grid:
    """The grid of a module by its full name.

    Args:
        static: all scales are fixed before the first column is rounded.
    """
    bits = bits_of(module, recipe.bits, recipe.dynamic)
    return Grid(bits, recipe.group_size, recipe.symmetric, recipe.clip == "mse", static, LOWEST_ZERO[recipe.format])


def round_blocks(source: Streamed, recipe: GridRecipe, choose: Callable[[Tensor, Grid], Rounded], start: int = 0) -> Iterator[Block]:
    """Round every linear module of every block, from block `start`, without data.

    Args:
        choose: the rounded weight of W [r, d] float32 on a grid.
    """
    architecture = source.architecture
    for index in with_progress(source, recipe.method, start):
        modules = []
        with source.loaded_block(index, torch.device("cpu")) as block:
            for name in architecture.modules:
                W = weight_of(linear(block, name)).detach()
                full = f"{architecture.blocks}.{index}.{name}"
                with located(full):
                    require_finite(W, "the weight", FETCH_AGAIN)
                rounded = choose(W, grid_of(recipe, full))
                with located(full):
                    require_scales(rounded, W)
                row = ModuleRow(name=full, block=index, kind=architecture.kind(name), status=Status.ok, **changes(W, rounded.Q))
                modules.append(QuantizedModule(rounded, row))
        yield Block(index, modules)


def require_scales(rounded: Rounded, target: Tensor) -> None:
    """Raise NotFinite where a group's scale overflows float16, as which it is stored.

    Args:
        rounded: the result.
        target: [r, d] what was rounded.
    """
    if not torch.isfinite(rounded.scale.sum()):
        what = f"the scale of a group overflows float16 (at most {torch.finfo(torch.float16).max:.0f})"
        raise NotFinite(
            f"{what}: the largest weight to be rounded is {float(target.abs().max()):.3g}",
            remedy="a weight as large is mostly damage: fetch the model again, or take another one; "
            "where it is meant, more bits for this module (`bits_by_module`) need a smaller scale",
        )


def changes(W: Tensor, Q: Tensor, target: Tensor | None = None, loss: Tensor | None = None) -> dict[str, Any]:
    """What was done to a weight, for its row of the record.

    Args:
        W: [r, d] the weight.
        Q: [r, d] the quantized weight.
        target: [r, d] what was rounded; None means W.
        loss: [r] by row; None means that nobody measured it.
    """
    norm = W.norm().clamp(min=torch.finfo(W.dtype).tiny)
    shift = norm.new_zeros(()) if target is None else (target - W).norm() / norm
    total = norm.new_zeros(()) if loss is None else loss.sum()
    shift, change, total = torch.stack([shift, (Q - W).norm() / norm, total]).tolist()  # a GPU is waited for once
    measured = {"shape": (W.shape[0], W.shape[1]), "shift": shift, "weight_change": change}
    return measured if loss is None else {**measured, "loss": total}


def with_progress(source: Streamed, name: str, start: int) -> Iterable[int]:
    """The numbers of the blocks behind a bar with the time left; in a log file it moves a few times
    a minute.
    """
    count = len(source.blocks)
    interval = 0.5 if sys.stderr.isatty() else 15
    return tqdm(range(start, count), desc=name, unit="block", initial=start, total=count, mininterval=interval)


@contextmanager
def located(where: str) -> Iterator[None]:
    """Name the module in an error of the arithmetic, which knows matrices alone."""
    try:
        yield
    except FairgateError as error:
        raise type(error)(error.what, where=where, remedy=error.remedy) from None
