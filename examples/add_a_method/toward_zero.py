"""Round toward zero: every weight goes to the nearest point of its grid that is not larger.

The method needs no data. Its weights are never larger than the base's, at the price of twice the
rounding error of `rtn`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from stages.quantize.methods.base import Forecast, GridRecipe, Inputs, Method, Store, register

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from stages.quantize.core.columns import Rounded
    from stages.quantize.core.compute import Compute
    from stages.quantize.core.grid import Grid
    from stages.quantize.model.streamed import Streamed


class TowardZero(GridRecipe):
    """Round toward zero."""

    method: Literal["toward_zero"] = Field(description="round toward zero")
    up_to: float = Field(1.0, ge=0, le=1, description="round up a remainder above this share of a step; 1: none")


@register
class TowardZeroMethod(Method[TowardZero, None]):
    name = "toward_zero"
    settings = TowardZero

    def read(self, recipe: TowardZero, base: Path, calibration: Path, *, batch_tokens: int, seed: int) -> Inputs[None]:
        return Inputs(None)

    def forecast(self, recipe: TowardZero, source: Streamed, compute: Compute, data: None) -> Forecast:
        from stages.quantize.methods.shared.sizes import without_data

        return without_data(source, recipe)

    def run(self, recipe: TowardZero, source: Streamed, compute: Compute, data: None, store: Store) -> None:
        from stages.quantize.methods.shared.modules import round_blocks

        def choose(W: Tensor, grid: Grid) -> Rounded:
            return toward_zero(W, grid, recipe.up_to)

        for block in round_blocks(source, recipe, choose, start=store.resume().block):
            store.add(block)


def toward_zero(W: Tensor, grid: Grid, up_to: float) -> Rounded:
    """W [r, d] float32 on its grid."""
    import torch

    from stages.quantize.core.columns import Rounded

    r, d = W.shape
    scale, zero = grid.fit_groups(W)
    steps = W.view(r, -1, grid.width(d)) / scale[..., None]
    whole = steps.trunc()
    whole += steps.sign() * ((steps - whole).abs() > up_to)
    codes = (whole + zero[..., None]).clamp(0, grid.top)
    return Rounded(codes.view(r, d).to(torch.uint8), scale, zero, W.new_zeros(r))
