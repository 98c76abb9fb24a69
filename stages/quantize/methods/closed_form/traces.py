"""Traces over the whole model, against which a fairness weight of global scope is measured."""

from __future__ import annotations

import torch
from torch import nn

from fairgate.support.errors import FairgateError
from stages.quantize.core.compute import Compute
from stages.quantize.core.hessian import Hessians
from stages.quantize.methods.closed_form.blocks import accumulators, inputs_of_block, run_block
from stages.quantize.methods.closed_form.calibration import Calibration
from stages.quantize.methods.closed_form.groups import FairnessTerm
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe
from stages.quantize.model.streamed import Streamed


@torch.no_grad()
def trace_sums(
    source: Streamed, term: FairnessTerm, calibration: Calibration, compute: Compute, recipe: CalibratedRecipe
) -> tuple[float, float]:
    """Sums of tr H and tr C over the debiased modules, with the unquantized model's inputs.

    Raises:
        FairgateError: all pair differences are zero.
    """
    totals = [0.0, 0.0]

    def add(index: int, group: list[str], block: nn.Module, hessians: Hessians) -> None:
        count = len(term.modules.intersection(group)) if index in term.blocks else 0
        if count and hessians.C is not None:
            totals[0] += count * float(hessians.H.trace())
            totals[1] += count * float(hessians.C.trace())

    block_inputs = inputs_of_block(source, calibration, compute)
    unquantized = recipe.model_copy(update={"collection": "parallel"})
    for index in range(len(source.blocks)):
        new_accumulator = accumulators([term], calibration, index, compute.device)
        run_block(source, index, block_inputs, new_accumulator, unquantized, add, compute)
    if totals[1] == 0:
        raise FairgateError("all pair differences are zero, so rho has no scale", remedy="use another alignment, or alpha")
    return totals[0], totals[1]
