"""Commands that quantize nothing read the settings; every method has its own in one place."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from fairgate.support.errors import FairgateError, UnknownName
from fairgate.support.params import PARAMS
from stages.quantize.methods import METHODS
from stages.quantize.methods.base import Method, register
from stages.quantize.methods.rtn import RtnMethod
from stages.quantize.settings import parse_recipe, read_recipe
from tests.project import REPOSITORY

READ = """
import sys
from stages.quantize.settings import METHODS, RunSettings, parse_recipe, read_recipe
from fairgate.support.params import load, read_params
load(RunSettings, "quantize", sys.argv[1])
for name, recipe in read_params(sys.argv[1])["recipes"].items():
    parse_recipe(recipe, where=name)
print(*sorted({"torch", "triton", "transformers", "greenlet"} & set(sys.modules)))
"""


def test_reading_all_recipes_imports_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", READ, REPOSITORY / PARAMS], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_unquantized_base_is_a_method_that_quantizes_nothing() -> None:
    assert parse_recipe({"method": "none"}, where="test").method == "none"
    assert [name for name, method in METHODS.items() if not method.quantizes] == ["none"]
    with pytest.raises(UnknownName, match="unquantized base: there is nothing to quantize"):
        read_recipe("base", REPOSITORY / PARAMS)


def test_every_setting_is_described_where_it_is_defined() -> None:
    bare = [
        f"{name}.{field}"
        for name, method in METHODS.items()
        for field, info in method.settings.model_fields.items()
        if not info.description
    ]
    assert bare == []


def test_a_method_is_asked_what_it_does_and_never_what_it_is() -> None:
    """Outside its own module nobody tests a recipe's type, or compares the name of its method."""
    asks = re.compile(r"isinstance\(\w*recipe\b|\.method [!=]= |\[\"method\"\] [!=]= |get\(\"method\"\) [!=]= ")
    code = [path for part in ("fairgate", "stages", "flows") for path in (REPOSITORY / part).rglob("*.py")]
    assert [path.relative_to(REPOSITORY).as_posix() for path in code if asks.search(path.read_text())] == []


@pytest.mark.parametrize("method", [None, 3, ["rtn"], {"rtn": 4}])
def test_a_method_that_is_no_text_is_refused(method: object) -> None:
    with pytest.raises(UnknownName, match="unknown method"):
        parse_recipe({"method": method}, where="params.yaml:recipes.x")


@pytest.mark.parametrize(
    ("method", "field"),
    [("fair_gptq", "alpha"), ("fair_gptq", "rho"), *(("fair_round", field) for field in ("parity", "anchor", "spread", "tau", "worst"))],
)
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_weight_without_end_is_refused(method: str, field: str, value: float) -> None:
    data = {"method": method, "bits": 4, "group_size": 64, "symmetric": True, field: value}
    with pytest.raises(FairgateError, match=rf"params.yaml:recipes.x: {field}: Input should be"):
        parse_recipe(data, where="params.yaml:recipes.x")


def test_two_methods_of_one_name_are_refused() -> None:
    class Twin(RtnMethod):
        name = "rtn"

    with pytest.raises(ValueError, match="two methods are called 'rtn'"):
        register(Twin)
    assert isinstance(METHODS["rtn"], Method)


@pytest.mark.parametrize("name", ["gptq.bits", "../gptq", "no"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(FairgateError, match=rf"--recipe: '{name}'"):
        read_recipe(name, REPOSITORY / PARAMS)
