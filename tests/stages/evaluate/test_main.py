"""The command line of evaluate: its names are checked before a library is imported."""

from __future__ import annotations

import argparse

import pytest

from fairgate.support.errors import FairgateError
from stages.evaluate.__main__ import main
from tests.project import REPOSITORY


@pytest.mark.parametrize(
    ("recipe", "task", "said"),
    [
        ("gptq.bits", [], "--recipe: 'gptq.bits' cannot be the name of a recipe"),
        ("../base", [], "--recipe: '../base' cannot be"),
        ("gptq", ["boolq", "../boolq"], "--task: '../boolq' cannot be the name of a task"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(recipe: str, task: list[str], said: str) -> None:
    with pytest.raises(FairgateError, match=said):
        main(argparse.Namespace(params=str(REPOSITORY / "params.yaml"), recipe=recipe, task=task))
