"""Round to nearest: every weight goes to the nearest point of its grid. No data are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from stages.quantize.methods.base import Forecast, GridRecipe, Inputs, Method, Store, register

if TYPE_CHECKING:
    from pathlib import Path

    from stages.quantize.core.compute import Compute
    from stages.quantize.model.streamed import Streamed


class Rtn(GridRecipe):
    """Round to nearest: no data."""

    method: Literal["rtn"] = Field(description="round to nearest")


@register
class RtnMethod(Method[Rtn, None]):
    name = "rtn"
    settings = Rtn

    def read(self, recipe: Rtn, base: Path, calibration: Path, *, batch_tokens: int, seed: int) -> Inputs[None]:
        return Inputs(None)

    def forecast(self, recipe: Rtn, source: Streamed, compute: Compute, data: None) -> Forecast:
        from stages.quantize.methods.shared.sizes import without_data

        return without_data(source, recipe)

    def run(self, recipe: Rtn, source: Streamed, compute: Compute, data: None, store: Store) -> None:
        from stages.quantize.core.columns import round_nearest
        from stages.quantize.methods.shared.modules import round_blocks

        for block in round_blocks(source, recipe, round_nearest, start=store.resume().block):
            store.add(block)
