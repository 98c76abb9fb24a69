"""The example adds a rule in one object, and a verdict changes because of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml

from examples.add_a_policy_rule.rule import RELATIVE_DROP
from fairgate.contracts.records import Outcome, Verdict
from fairgate.decision.policy import Policy
from fairgate.decision.rules import RULES
from fairgate.decision.verdict import Decision, decide
from fairgate.support.errors import UnknownName
from tests.items import choices, quantization, table
from tests.project import REPOSITORY

CHECK = yaml.safe_load((REPOSITORY / "examples/add_a_policy_rule/check.yaml").read_text())
DROP = {**CHECK, "name": "piqa_points", "rule": "drop", "margin": 0.08}


def judge(*checks: dict[str, Any]) -> Decision:
    """A reference that is right in 50 of 100 items, and a candidate that lost 5 of them."""
    right = np.arange(2000) % 2 == 0
    kept = right & (np.arange(2000) % 20 != 0)
    policy = Policy.model_validate(
        {
            "candidate": "fair",
            "reference": "base",
            "confidence": 0.95,
            "draws": 10_000,
            "seed": 0,
            "checks": list(checks),
        }
    )
    items = [table(*choices("piqa", correct)) for correct in (kept, right)]
    return decide(policy, *items, quantization("fair"))


def test_without_the_rule_the_policy_is_refused() -> None:
    with pytest.raises(UnknownName, match="relative_drop"):
        judge(CHECK)


def test_a_verdict_changes_because_of_the_new_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(DROP).verdict is Verdict.approve  # 5 points are within 8
    monkeypatch.setitem(RULES, RELATIVE_DROP.name, RELATIVE_DROP)
    decision = judge(DROP, CHECK)
    assert decision.verdict is Verdict.reject  # but they are a tenth of the score
    points, relative = decision.checks
    assert points.outcome is Outcome.passed and relative.outcome is Outcome.failed
    assert relative.harm == pytest.approx(0.1)
    assert "for piqa.acc lost a share of 0.1 (at least" in decision.reasons[0]
