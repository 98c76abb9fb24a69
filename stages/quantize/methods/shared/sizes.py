"""Sizes of a model and of its checkpoint, from shapes alone."""

from __future__ import annotations

from stages.quantize.methods.base import Forecast, GridRecipe
from stages.quantize.methods.shared.modules import grid_of
from stages.quantize.model.calibration_pass import linear, weight_of
from stages.quantize.model.streamed import Streamed

FLOAT = 4  # bytes


def without_data(source: Streamed, recipe: GridRecipe) -> Forecast:
    """The needs of a method that rounds one block after the other and reads no data."""
    packed, out = checkpoint_bytes(source, recipe)
    return Forecast(cpu=max(max(block_parameters(source)) * FLOAT, 2 * out), gpu=0, out=out, work=packed)


def checkpoint_bytes(source: Streamed, recipe: GridRecipe) -> tuple[int, int]:
    """Bytes of the packed modules, and of the whole checkpoint."""
    shapes = linear_shapes(source)
    packed = sum(packed_bytes(name, r, d, recipe) for name, r, d in shapes)
    stored = source.weights.bytes
    return packed, packed + stored - sum(r * d for _, r, d in shapes) * stored // parameters(source)


def packed_bytes(module: str, r: int, d: int, recipe: GridRecipe) -> int:
    """Bytes of qweight, qzeros, scales and g_idx of one module [r, d]."""
    grid = grid_of(recipe, module)
    groups = d // grid.width(d)
    return r * d * grid.bits // 8 + r * groups * grid.bits // 8 + 2 * r * groups + 4 * d


def parameters(source: Streamed) -> int:
    """Numbers in the whole model."""
    return sum(parameter.numel() for parameter in source.parameters().values())


def block_parameters(source: Streamed) -> list[int]:
    """Numbers in each block."""
    return [sum(parameter.numel() for parameter in block.parameters()) for block in source.blocks]


def linear_shapes(source: Streamed) -> list[tuple[str, int, int]]:
    """Full name, outputs and inputs of every linear module."""
    return [
        (f"{source.architecture.blocks}.{index}.{name}", *weight_of(linear(block, name)).shape)
        for index, block in enumerate(source.blocks)
        for name in source.architecture.modules
    ]


def group_shapes(source: Streamed) -> list[list[tuple[int, int]]]:
    """Outputs and inputs of the linear modules of the first block, by shared input."""
    block = source.blocks[0]
    return [[(w.shape[0], w.shape[1]) for w in (weight_of(linear(block, name)) for name in group)] for group in source.architecture.groups]
