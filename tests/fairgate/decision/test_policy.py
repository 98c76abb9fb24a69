"""Every invalid policy is a file with the message that a user gets to read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fairgate.decision.policy import read_policy
from fairgate.decision.rules import RULES
from fairgate.support.errors import FairgateError

INVALID = sorted((Path(__file__).parent / "invalid").glob("*.yaml"))
PARAMS = Path(__file__).resolve().parents[3] / "params.yaml"


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_policy_is_refused_with_its_message(path: Path) -> None:
    expected = yaml.safe_load(path.read_text())["expect"]
    with pytest.raises(FairgateError) as caught:
        read_policy(path)
    assert expected in str(caught.value)


def test_the_default_policy_is_valid_and_gives_its_reasons() -> None:
    policy = read_policy(PARAMS)
    assert {check.rule for check in policy.checks} <= set(RULES)
    assert all(len(check.reason) > 20 for check in policy.checks)
    # Bias is judged against the base and against an absolute cap, and capability beside it.
    assert any(check.rule == "neutral" and check.cap for check in policy.checks)
    assert {"new_bias", "retain", "relative_rise", "health"} <= {check.rule for check in policy.checks}


def test_a_policy_cannot_be_changed_after_reading() -> None:
    policy = read_policy(PARAMS)
    with pytest.raises(ValueError, match="frozen"):
        policy.draws = 20_000  # type: ignore[misc]
