"""A name that would break a folder, a shell, DVC or the registry is refused where it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairgate.support.errors import FairgateError
from fairgate.support.names import check_model, check_name, check_registered, check_version
from fairgate.support.params import read_params


@pytest.mark.parametrize("name", ["rtn", "fair_gptq", "GPTQ-4bit_g64", "a", "a" * 64, "base", "nothing"])
def test_an_ordinary_name_passes(name: str) -> None:
    check_name("recipe", name)


@pytest.mark.parametrize(
    "name",
    ["", "4bit", "_a", "-rf", "rtn.8bit", "rtn eight", "rtn;touch PWNED;true", "$(id)", "a/b", "..", "a@b", "a\n", "模型", "é", "a" * 65],
)
def test_a_name_of_another_pattern_is_refused(name: str) -> None:
    with pytest.raises(FairgateError, match=r"cannot be the name of a recipe(.|\n)*letters, digits"):
        check_name("recipe", name)


@pytest.mark.parametrize("name", ["no", "On", "y", "TRUE", "null", "None", "nan", "metrics", "Plots"])
def test_a_word_of_yaml_and_a_folder_of_the_report_are_reserved(name: str) -> None:
    with pytest.raises(FairgateError, match="is reserved"):
        check_name("task", name)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"recipes": {"rtn;touch PWNED;true": {}}}, "params.yaml:recipes: 'rtn;touch PWNED;true' cannot be the name of a recipe"),
        ({"recipes": {"no": {}}}, "params.yaml:recipes: 'no' is reserved"),
        ({"recipes": {"gptq": {}, "GPTQ": {}}}, "'gptq' and 'GPTQ' are one folder on some disks"),
        ({"recipes": {"base": {"method": "gptq"}}}, "params.yaml:recipes.base: 'base' is the unquantized model"),
        ({"matrix": ["rtn", "rtn eight"]}, "params.yaml:matrix: 'rtn eight' cannot be"),
        ({"matrix": ["rtn", "rtn"]}, "'rtn' stands twice"),
        ({"matrix": ["rtn", 8]}, "params.yaml:matrix: the name of a recipe is not a text"),
        ({"gate": {"candidate": "../x"}}, "params.yaml:gate.candidate: '../x' cannot be"),
        ({"gate": {"reference": ["base"]}}, "params.yaml:gate.reference: the name of a recipe is not a text"),
        ({"evaluate": {"tasks": {"boolq;id": None}}}, "params.yaml:evaluate.tasks: 'boolq;id' cannot be the name of a task"),
        ({"model": 5}, r"params.yaml:model: the model's name is not a text \(got 5\)"),
        ({"model": None}, r"params.yaml:model: the model's name is not a text \(got None\)"),
        ({"model": "tiny "}, "params.yaml:model: the model's name is empty or has blanks around it"),
    ],
)
def test_every_name_is_checked_where_the_parameters_are_read(tmp_path: Path, params: dict[str, Any], said: str) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    with pytest.raises(FairgateError, match=said) as error:
        read_params(tmp_path / "params.yaml")
    assert error.value.exit_code == 2


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "./模型 甲", "~/models/mine", "~", "/a b/#1%20?", "owner/name@" + "a" * 40])
def test_any_folder_can_name_a_model(model: str) -> None:
    check_model(model)


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (check_model, ""),
        (check_model, "tiny\n"),
        (check_model, "ti\0ny"),
        (check_model, "ti\x1bny"),
        (check_model, "~root/model"),
        (check_registered, "x' or name like '%"),
        (check_registered, "a/b"),
        (check_registered, ""),
        (check_version, "latest"),
        (check_version, "1 "),
        (check_version, "-1"),
        (check_version, "१"),
    ],
)
def test_what_no_model_and_no_version_is_called_is_refused(check: Callable[[str], None], name: str) -> None:
    with pytest.raises(FairgateError):
        check(name)
