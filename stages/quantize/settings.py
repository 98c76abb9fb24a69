"""What a person writes in params.yaml for this stage, validated before any weight is loaded.

The settings of a recipe are defined by its method (stages/quantize/methods). Defaults that
params.yaml leaves out stand here and there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field

from fairgate.support.errors import FairgateError, UnknownName
from fairgate.support.names import check_name
from fairgate.support.params import Section, Seed, parse, pick, read_params
from stages.quantize.methods import METHODS, Recipe
from stages.quantize.methods.base import GridRecipe


class RunSettings(Section):
    """Section `quantize`: how to run, the same for every recipe."""

    device: Literal["auto", "cpu", "cuda"] = Field(description="`auto` is the GPU where there is one")
    seed: Seed
    batch_tokens: int = Field(gt=0, description="token slots of a batch, pads included")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the forward passes; `auto` is bfloat16 on a GPU and float32 elsewhere"
    )
    low_memory: bool = Field(False, description="one batch at a time and hidden states in main memory; slower, the same weights")
    gpus: int = Field(1, gt=0, description="GPUs that share the batches")
    gpu_gib: float | None = Field(
        None, gt=0, description="memory of each GPU that may be used: as many batches wait inside a block as fit; null: what is free"
    )
    diagnostics: bool = Field(True, description="write `contributions.csv`, and penalties and eigenvalues in `quantization.json`")
    alpha_zero: bool = Field(
        True, description="tell there what plain GPTQ would have left, at the price of a second rounding of each debiased module"
    )


def read_recipe(name: str, path: Path | str) -> GridRecipe:
    """Recipe `name` of the parameter file, to be quantized by.

    Raises:
        UnknownName: an unknown recipe, method or parameter (with the nearest right name), or the
            method of the unquantized base.
        FairgateError: no possible name, or a value out of range.
    """
    check_name("recipe", name, where="--recipe")
    data: Any = pick(read_params(path), f"recipes.{name}", kind="recipe", where=f"{path}:recipes")
    where = f"{path}:recipes.{name}"
    recipe = parse_recipe(data, where=where)
    if not METHODS[recipe.method].quantizes:
        what = f"method {recipe.method!r} is the unquantized base: there is nothing to quantize"
        raise UnknownName(what, where=where, remedy="name another recipe")
    return cast(GridRecipe, recipe)  # what quantizes, packs to a grid


def parse_recipe(data: Any, *, where: str) -> Recipe:
    """A recipe from its mapping of settings.

    Raises:
        UnknownName: an unknown method or parameter, with the nearest right name.
        FairgateError: not a mapping, or a value out of range.
    """
    if not isinstance(data, dict):
        raise FairgateError(f"not a mapping of settings (got {data!r})", where=where, remedy="write at least `method:`")
    if not isinstance(method := data.get("method"), str) or method not in METHODS:
        raise UnknownName.of("method", str(method), METHODS, where=where)
    return parse(METHODS[method].settings, data, where=where)
