"""The JSON schema of params.yaml: up to date, and it refuses what the stages refuse."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from fairgate.support.params import read_params
from flows.params_schema import FILE, text
from tests.project import REPOSITORY

PARAMS = REPOSITORY / "params.yaml"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads((REPOSITORY / FILE).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_committed_schema_is_what_the_settings_generate() -> None:
    assert (REPOSITORY / FILE).read_text(encoding="utf-8") == text(), "run `make schema`"


def test_params_yaml_names_the_schema_and_meets_it(validator: Draft202012Validator) -> None:
    assert PARAMS.read_text(encoding="utf-8").startswith(f"# yaml-language-server: $schema={FILE}\n")
    assert list(validator.iter_errors(read_params(PARAMS))) == []


@pytest.mark.parametrize(
    ("change", "at"),
    [
        (lambda p: p["quantize"].update(batch_token=1), "quantize"),
        (lambda p: p["calibrate"].update(development_share=1.5), "calibrate.development_share"),
        (lambda p: p["recipes"]["rtn"].update(alpha=0.1), "recipes.rtn"),
        (lambda p: p["recipes"]["gptq"].update(method="gtpq"), "recipes.gptq"),
        (lambda p: p["gate"]["checks"][0].pop("reason"), "gate.checks.0"),
        (lambda p: p.pop("evaluate"), ""),
        (lambda p: p.update(evaluation={}), ""),
    ],
)
def test_a_wrong_value_is_refused_where_it_stands(
    validator: Draft202012Validator, change: Callable[[dict[str, Any]], object], at: str
) -> None:
    params = copy.deepcopy(read_params(PARAMS))
    change(params)
    places = {".".join(map(str, error.absolute_path)) for error in validator.iter_errors(params)}
    assert places == {at}
