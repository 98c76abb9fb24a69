"""A recipe of params.yaml, as far as the stages after quantization look into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairgate.support.errors import FairgateError

UNQUANTIZED = "none"  # the method of a recipe that leaves the base as it is


def is_unquantized(method: str | None) -> bool:
    """Whether a recipe with this `method` is the unquantized base, which has no checkpoint of its
    own.
    """
    return method == UNQUANTIZED


def model_folder(recipes: Mapping[str, Any], recipe: str, data: Path) -> Path:
    """The folder of the recipe's model below the folder `data`.

    Raises:
        FairgateError: the recipe names no method.
    """
    method = recipes[recipe].get("method") if isinstance(recipes[recipe], dict) else None
    if method is None:
        raise FairgateError("has no method", where=f"recipes.{recipe}", remedy="add `method: none`, `rtn`, `gptq` or another one")
    return data / "base" if is_unquantized(method) else data / "models" / recipe
