"""No quantization: the base as it is, which every other model is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NoReturn

from pydantic import Field

from fairgate.contracts.recipes import UNQUANTIZED
from fairgate.support.errors import FairgateError
from stages.quantize.methods.base import Forecast, Inputs, Method, Recipe, Store, register

if TYPE_CHECKING:
    from pathlib import Path

    from stages.quantize.core.compute import Compute
    from stages.quantize.model.streamed import Streamed


class Unquantized(Recipe):
    """The unquantized base."""

    method: Literal["none"] = Field(description="the model stays as it is")


@register
class NoneMethod(Method[Unquantized, None]):
    name = UNQUANTIZED
    settings = Unquantized
    quantizes = False

    def read(self, recipe: Unquantized, base: Path, calibration: Path, *, batch_tokens: int, seed: int) -> Inputs[None]:
        return Inputs(None)

    def forecast(self, recipe: Unquantized, source: Streamed, compute: Compute, data: None) -> Forecast:
        return Forecast(cpu=0, gpu=0, out=0, work=0)

    def run(self, recipe: Unquantized, source: Streamed, compute: Compute, data: None, store: Store) -> NoReturn:
        raise FairgateError("the unquantized base: there is nothing to quantize", where="recipe", remedy="name another recipe")
