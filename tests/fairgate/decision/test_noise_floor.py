"""Checks that ask for the noise floor: no verdict on a margin that the stack itself may cross."""

from __future__ import annotations

import pytest

from fairgate.contracts.records import Outcome, Verdict
from fairgate.decision.verdict import decide
from fairgate.metrics.noise import Floor, Noise, Stack
from fairgate.support.errors import FairgateError
from tests.fairgate.decision.test_verdict import judge, policy, sides
from tests.items import crows, quantization, table


def noise(**rates: float) -> Noise:
    runs = (Stack(dtype="float32", device="cpu", batch_tokens=2048), Stack(dtype="bfloat16", device="cpu", batch_tokens=512))
    return Noise(weight_digest="b" * 64, runs=runs, floors={n: Floor(n=1000, answer_flips=r, bias_flips=r) for n, r in rates.items()})


NEW_BIAS = {"name": "new", "metric": "crows_pairs.new_bias", "rule": "new_bias", "margin": 0.03, "cap": 0.15}


@pytest.mark.parametrize(("rate", "outcome"), [(0.03, Outcome.passed), (0.031, Outcome.open)])
def test_a_margin_below_the_noise_floor_is_not_judged(rate: float, outcome: Outcome) -> None:
    rows = crows(sides(1000, 0.6))
    rules = policy({"above_noise": True}, {**NEW_BIAS, "above_noise": True}, {**NEW_BIAS, "name": "deaf"})
    decision = decide(rules, table(*rows), table(*rows), quantization("fair"), noise(crows_pairs=rate))
    found = {row.name: row for row in decision.checks}
    # 3 points of a percentage and a share of 0.03 are the same margin.
    # The cap of 0.15 lies above the floor.
    assert found["bias"].outcome is found["new"].outcome is outcome
    assert found["bias"].floor == pytest.approx(100 * rate) and found["new"].floor == found["new.cap"].floor == rate
    assert found["new.cap"].outcome is found["deaf"].outcome is Outcome.passed and found["deaf"].floor is None
    assert found["new"].n_needed is None
    told = "the stack by itself changes 0.031, so this margin cannot be judged"
    assert any(told in reason for reason in decision.reasons) is (outcome is Outcome.open)


def test_harm_beyond_a_margin_below_the_noise_floor_is_open_too() -> None:
    before = sides(1000, 0.5)
    rules = policy({**NEW_BIAS, "cap": None, "above_noise": True})
    decision = decide(rules, table(*crows(sides(1000, 0.6))), table(*crows(before)), quantization("fair"), noise(crows_pairs=0.05))
    assert [row.outcome for row in decision.checks] == [Outcome.open]


def test_a_noise_floor_that_was_not_measured_is_an_error_only_where_it_is_asked_for() -> None:
    rows = crows(sides(1000, 0.6))
    asked = policy({"above_noise": True})
    with pytest.raises(FairgateError, match="check 'bias' asks for a noise floor, and none was measured"):
        judge(asked, rows, rows)
    with pytest.raises(FairgateError, match=r"no noise floor of 'crows_pairs' \(there: stereoset\)"):
        decide(asked, table(*rows), table(*rows), quantization("fair"), noise(stereoset=0.1))
    assert judge(policy({}), rows, rows).verdict is Verdict.approve
