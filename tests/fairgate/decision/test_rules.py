"""The rules are one table, and the documentation shows that table."""

from __future__ import annotations

import numpy as np
import pytest

from fairgate.decision.rules import KINDS, RULES, Standard, rules_table
from tests.project import REPOSITORY

Q, B = np.array([0.5, 0.8]), np.array([0.75, 0.5])


def test_the_documentation_shows_every_rule_as_it_is() -> None:
    assert rules_table() in (REPOSITORY / "docs/methods.md").read_text(encoding="utf-8"), (
        f"docs/methods.md, section The gate, should hold this table:\n{rules_table()}"
    )


def test_every_rule_has_its_name_a_kind_and_words() -> None:
    for name, rule in RULES.items():
        assert rule.name == name and rule.sentence and rule.formula
        assert rule.kinds and set(rule.kinds) <= set(KINDS)


@pytest.mark.parametrize(
    ("rule", "standard", "expected"),
    [
        ("neutral", Standard(neutral=0.6), np.abs(Q - 0.6) - np.abs(B - 0.6)),
        ("drop", Standard(), B - Q),
        ("rise", Standard(), Q - B),
        ("retain", Standard(ratio=0.9), 0.9 * B - Q),
        ("relative_rise", Standard(), Q / B - 1),
        ("cap", Standard(neutral=0.6), np.abs(Q - 0.6)),
        ("cap", Standard(), Q),
        ("new_bias", Standard(), Q),
    ],
)
def test_the_harm_is_the_largest_side_of_the_smallest_way(rule: str, standard: Standard, expected: np.ndarray) -> None:
    harm = RULES[rule].harm
    assert harm is not None
    assert np.allclose(harm(Q, B, standard).min(-1).max(-1), expected)
