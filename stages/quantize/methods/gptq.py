"""GPTQ: round column by column, and correct each error in the columns not yet rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from stages.quantize.methods.base import Inputs, register
from stages.quantize.methods.closed_form.method import ClosedForm
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe

if TYPE_CHECKING:
    from pathlib import Path

    from stages.quantize.methods.closed_form.calibration import Calibration


class Gptq(CalibratedRecipe):
    """GPTQ on the calibration data, without a fairness term."""

    method: Literal["gptq"] = Field(description="GPTQ on the calibration data")


@register
class GptqMethod(ClosedForm[Gptq]):
    name = "gptq"
    settings = Gptq

    def read(self, recipe: Gptq, base: Path, calibration: Path, *, batch_tokens: int, seed: int) -> Inputs[Calibration]:
        from stages.quantize.methods.closed_form.calibration import read_calibration

        return read_calibration(recipe, base, calibration, batch_tokens)
