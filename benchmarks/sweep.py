"""Several recipes from one calibration pass: how much of a search over alpha the passes themselves
cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn

from fairgate.support.errors import FairgateError
from stages.quantize.core.compute import Compute
from stages.quantize.core.hessian import Hessians
from stages.quantize.methods import METHODS
from stages.quantize.methods.base import Block
from stages.quantize.methods.closed_form.blocks import accumulators, inputs_of_block, run_block
from stages.quantize.methods.closed_form.calibration import Calibration
from stages.quantize.methods.closed_form.groups import GroupSolver
from stages.quantize.methods.closed_form.method import ClosedForm
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe
from stages.quantize.model.streamed import Streamed


@torch.no_grad()
def sweep(source: Streamed, recipes: Sequence[CalibratedRecipe], calibration: Calibration, compute: Compute) -> Iterator[list[Block]]:
    """Per block, the result of each recipe, equal to the recipe's own run.

    The recipes may differ in weight, mode, modules, blocks, damping and grid. Inputs come from the
    unquantized model, so that they are the same for all.

    Raises:
        FairgateError: a recipe collects sequentially, or they differ in what is collected.
    """
    collected = {(recipe.collection, recipe.calibration, recipe.text_share, getattr(recipe, "alignment", None)) for recipe in recipes}
    if len(collected) != 1 or recipes[0].collection != "parallel":
        remedy = "give all of them `collection: parallel` and the same calibration, text_share and alignment"
        raise FairgateError("these recipes cannot share one pass over the data", where="recipes", remedy=remedy)
    terms = [cast(ClosedForm[Any], METHODS[recipe.method]).term(recipe, source, compute, calibration) for recipe in recipes]
    block_inputs = inputs_of_block(source, calibration, compute)
    for index in range(len(source.blocks)):
        solvers = [GroupSolver(source.architecture, recipe, term, compute) for recipe, term in zip(recipes, terms, strict=True)]

        def solve_all(index: int, group: list[str], block: nn.Module, hessians: Hessians, solvers: Sequence[GroupSolver] = solvers) -> None:
            for solver in solvers:
                solver(index, group, block, hessians)

        new_accumulator = accumulators(terms, calibration, index, compute.device)
        run_block(source, index, block_inputs, new_accumulator, recipes[0], solve_all, compute)
        outputs = [block_input.hidden for block_input in block_inputs]
        yield [Block(index, solver.modules, outputs) for solver in solvers]
