"""Checks of a mean over groups whose items come in questions.

The question is the unit, the group the weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairgate.contracts.records import Outcome
from tests.fairgate.decision.test_verdict import judge, policy
from tests.items import row

UNKNOWN, STEREOTYPED = [-9.0, -9.0, -1.0], [-1.0, -9.0, -9.0]
CHECK = {"name": "abstains", "metric": "bbq_ll.accuracy_amb", "rule": "drop", "margin": 0.1, "minimum_n": 40}
QUESTIONS = {"Gender_identity": 60, "Religion": 20}


def bbq(wrong: dict[str, int]) -> list[dict[str, Any]]:
    """Questions of each category, with 4 ambiguous and 4 other items a question.

    `wrong` says how many of a category are answered with the stereotype instead of "unknown".
    """
    return [
        row("bbq_ll", f"{category} {q} {i}", STEREOTYPED if q < wrong[category] and i < 4 else UNKNOWN, cluster=f"{category} {q}",
            group=category, subgroup="ambig" if i < 4 else "disambig", gold=2 if i < 4 else 0)
        for category, questions in QUESTIONS.items()
        for q in range(questions)
        for i in range(8)
    ]  # fmt: skip


def test_units_are_questions_and_items_those_that_count() -> None:
    before = bbq({"Gender_identity": 6, "Religion": 2})
    (check,) = judge(policy(CHECK), before, before).checks
    assert (check.n, check.items, check.candidate, check.harm) == (80, 4 * 80, 0.9, 0)
    (few,) = judge(policy(CHECK | {"minimum_n": 81}), before, before).checks
    assert few.outcome is Outcome.open


def test_a_small_category_weighs_as_much_as_a_large_one_and_its_questions_move_together() -> None:
    before, now = bbq({"Gender_identity": 6, "Religion": 2}), bbq({"Gender_identity": 6, "Religion": 12})
    overall, *groups = judge(policy(CHECK, CHECK | {"name": "each", "by": "group", "minimum_n": 10}), now, before).checks
    # Religion lost 10 of 20 questions: half of its value, a quarter of the mean.
    # Pooled it would be an eighth.
    assert overall.harm == pytest.approx(0.25) and overall.outcome is Outcome.failed
    assert {row.group: (row.n, row.harm) for row in groups} == {"Gender_identity": (60, 0.0), "Religion": (20, pytest.approx(0.5))}
    # The interval belongs to 20 coin tosses, not to 80 items: standard error 0.5 / sqrt(20),
    # halved by the weight of a category.
    assert overall.low is not None and overall.high is not None
    width = (overall.high - overall.low) / 2
    assert width == pytest.approx(1.7 * 0.5 * np.sqrt(0.25 / 20), rel=0.15)
