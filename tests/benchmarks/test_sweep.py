from __future__ import annotations

import pytest
import torch

from benchmarks.sweep import sweep
from fairgate.support.errors import FairgateError
from fairgate.support.params import parse
from stages.quantize.core.compute import Compute
from stages.quantize.methods.closed_form.calibration import Calibration
from stages.quantize.methods.fair_gptq import FairGptq
from stages.quantize.model.streamed import Streamed
from tests.stages.quantize.conftest import calibration, llama
from tests.stages.quantize.model.test_calibration_pass import CPU, FAIR, PARALLEL, _codes, data, source

__all__ = ["calibration", "data", "llama", "source"]  # fixtures


def test_sweep_from_one_parallel_pass_equals_separate_parallel_runs(source: Streamed, data: Calibration) -> None:
    recipes = [parse(FairGptq, {**PARALLEL, **changes}, where="test") for changes in ({"alpha": 0.1}, {"alpha": 0.7, "modules": "out"})]
    swept = list(sweep(source, recipes, data, Compute(CPU)))
    for number, recipe in enumerate(recipes):
        for blocks, alone in zip(swept, FAIR.blocks(recipe, source, Compute(CPU), data), strict=True):
            ours, theirs = _codes(blocks[number]), _codes(alone)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
            assert [module.row for module in blocks[number].modules] == [module.row for module in alone.modules]


def test_sweep_refuses_recipes_that_need_other_inputs(source: Streamed, data: Calibration) -> None:
    sequential = parse(FairGptq, {**PARALLEL, "alpha": 0.1, "collection": "sequential"}, where="test")
    with pytest.raises(FairgateError, match="cannot share one pass"):
        next(sweep(source, [sequential, sequential], data, Compute(CPU)))
