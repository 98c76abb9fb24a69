"""Answers in a box: options under letters, and the answer read out of a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from string import ascii_uppercase
from typing import Any


def letters(row: dict[str, Any], name: str, last: int = 0) -> dict[str, Any]:
    """The options with a letter each, shuffled except for the `last` ones.

    The seed is (set, item), so all models see the same order.
    """
    order = list(range(len(row["options"]) - last))
    Random(f"{name}:{row['item_id']}").shuffle(order)
    order += range(len(order), len(row["options"]))
    answers = [ascii_uppercase[order.index(option)] for option in range(len(order))]
    return row | {"shown": [row["options"][option] for option in order], "answers": answers}


def read_answer(text: str, answers: Sequence[str]) -> int:
    r"""Index of the answer in the last box of a text; -1 where none holds an allowed one.

    The whole text counts as boxed too, for an output that is nothing but the answer. Words may be
    in lower, title or upper case.
    """
    spelled = {spelling: index for index, answer in enumerate(answers) for spelling in _spellings(answer)}
    boxed = re.findall(rf"boxed{{({'|'.join(map(re.escape, spelled))})}}", rf"\boxed{{{text}}}")
    return spelled[boxed[-1]] if boxed else -1


def _spellings(answer: str) -> tuple[str, ...]:
    return (answer,) if len(answer) == 1 else (answer.lower(), answer.title(), answer.upper())
