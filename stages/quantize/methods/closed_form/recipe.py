"""Settings of the methods that calibrate: GPTQ, with or without a fairness term."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.quantize.methods.base import GridRecipe


class CalibratedRecipe(GridRecipe):
    """How calibration data enter, and how columns are rounded on them."""

    damping: float = Field(0.01, ge=0, lt=1, description="share of the Hessian's mean diagonal that is added to its diagonal")
    calibration: Literal["mixed", "pairs", "text"] = Field("mixed", description="which data enter H")
    text_share: float | None = Field(None, ge=0, le=1, description="weight w of general text in H; null: its share of the tokens")
    collection: Literal["sequential", "parallel"] = Field(
        "sequential", description="inputs come from the blocks already quantized, or (`parallel`) from the unquantized model"
    )
    static_groups: bool = Field(False, description="fix all scales before the first column is rounded")
    act_order: bool = Field(False, description="round the columns by descending diagonal of the Hessian; needs static_groups")

    @model_validator(mode="after")
    def _no_reordering_at_inference(self) -> CalibratedRecipe:
        if self.act_order and not self.static_groups:
            raise ValueError("act_order needs static_groups: true, or a group's columns would lie scattered in the packed weight")
        return self
