from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.contracts.recipes import is_unquantized, model_folder
from fairgate.support.errors import FairgateError


def test_base_and_recipes_have_their_folders() -> None:
    recipes = {"base": {"method": "none"}, "rtn": {"method": "rtn"}, "odd": {}}
    assert model_folder(recipes, "base", Path("data")) == Path("data/base")
    assert model_folder(recipes, "rtn", Path("data")) == Path("data/models/rtn")
    with pytest.raises(FairgateError, match=r"recipes.odd: has no method"):
        model_folder(recipes, "odd", Path("data"))


def test_only_the_method_none_leaves_the_base_as_it_is() -> None:
    assert [is_unquantized(method) for method in ("none", "rtn", None)] == [True, False, False]
