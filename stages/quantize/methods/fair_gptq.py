"""Fair-GPTQ: GPTQ whose objective also holds the two sentences of a pair together
(docs/methods.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from stages.quantize.core.names import Alignment, Mode
from stages.quantize.methods.base import Inputs, register
from stages.quantize.methods.closed_form.method import ClosedForm
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe

if TYPE_CHECKING:
    from pathlib import Path

    from stages.quantize.core.compute import Compute
    from stages.quantize.methods.closed_form.calibration import Calibration
    from stages.quantize.methods.closed_form.groups import FairnessTerm
    from stages.quantize.model.architectures import Architecture
    from stages.quantize.model.streamed import Streamed


class FairGptq(CalibratedRecipe):
    """GPTQ with the group-fairness term (docs/methods.md)."""

    method: Literal["fair_gptq"] = Field(description="GPTQ with the fairness term")
    mode: Mode = Field(Mode.exact, strict=False, description="how the term enters the target and the Hessian (docs/methods.md)")
    alignment: Alignment = Field(Alignment.aligned, strict=False, description="which tokens of a pair's two sentences are compared")
    group_by: Literal["bias_type", "target"] = Field("bias_type", description="what the pairs of a group share, for `group-mean`")
    alpha: float | None = Field(None, ge=0, description="weight of the term; give alpha or rho")
    rho: float | None = Field(None, ge=0, description="weight of the term against H, by traces; give alpha or rho")
    rho_scope: Literal["module", "global"] = Field("module", description="the traces' scope: each module, or the whole model")
    modules: str | list[str] = Field("all", description="linear modules that are debiased: `all`, `out`, or a list of names (`o_proj`)")
    blocks: str = Field("all", description="blocks that are debiased: `all`, `lower`, `upper` or `lower+upper`")

    @model_validator(mode="after")
    def _one_weight(self) -> FairGptq:
        if (self.alpha is None) == (self.rho is None):
            raise ValueError("give either alpha or rho, not both and not neither")
        if self.calibration == "text":
            raise ValueError("fair_gptq needs pairs: calibration must be 'mixed' or 'pairs'")
        return self


@register
class FairGptqMethod(ClosedForm[FairGptq]):
    name = "fair_gptq"
    settings = FairGptq

    def check(self, recipe: FairGptq, architecture: Architecture, blocks: int) -> None:
        from stages.quantize.model.architectures import debiased_blocks, debiased_modules

        debiased_modules(architecture, recipe.modules)
        debiased_blocks(blocks, recipe.blocks)

    def read(self, recipe: FairGptq, base: Path, calibration: Path, *, batch_tokens: int, seed: int) -> Inputs[Calibration]:
        from stages.quantize.methods.closed_form.calibration import read_calibration

        return read_calibration(recipe, base, calibration, batch_tokens, recipe.alignment, recipe.group_by)

    def term(self, recipe: FairGptq, source: Streamed, compute: Compute, data: Calibration) -> FairnessTerm | None:
        """The fairness term; None where it would be zero, so that alpha = 0 is GPTQ bit for bit."""
        from stages.quantize.core.hessian import FairnessWeight
        from stages.quantize.methods.closed_form.groups import FairnessTerm
        from stages.quantize.methods.closed_form.traces import trace_sums
        from stages.quantize.model.architectures import debiased_blocks, debiased_modules

        if not (recipe.alpha or recipe.rho):
            return None
        term = FairnessTerm(
            modules=debiased_modules(source.architecture, recipe.modules),
            blocks=debiased_blocks(len(source.blocks), recipe.blocks),
            weight=FairnessWeight(alpha=recipe.alpha, rho=recipe.rho),
            mode=recipe.mode,
            group_mean=recipe.alignment is Alignment.group_mean,
        )
        if recipe.rho is None or recipe.rho_scope == "module":
            return term
        of_H, of_C = trace_sums(source, term, data, compute, recipe)
        return replace(term, weight=FairnessWeight(factor=recipe.rho * of_H / of_C))
