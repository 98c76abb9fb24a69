"""The rule of choice, and the distance that it minimizes."""

from __future__ import annotations

import pytest

from experiments.rule import Rule, distance

METRICS = {
    "stereoset_dev.ss": 60.0,
    "stereoset_dev.ss.gender": 48.0,
    "stereoset_dev.ss.race": 64.0,
    "redditbias_valid.ss": 46.0,
    "winobias_dev.historical_bias": -0.2,
}


def test_a_distance_is_the_mean_over_sets() -> None:
    assert distance(METRICS) == pytest.approx((10 + 4 + 10) / 3)


def test_the_worst_bias_type_counts_as_a_set_of_its_own() -> None:
    assert distance(METRICS, ("gender", "race", "religion")) == pytest.approx((10 + 14 + 4 + 10) / 4)


def test_a_set_without_types_counts_twice() -> None:
    assert distance(METRICS, ("religion",)) == pytest.approx((10 + 10 + 4 + 10) / 4)


@pytest.mark.parametrize(("perplexity", "lms", "allowed"), [(22.0, 89.0, True), (22.1, 89.0, False), (22.0, 88.9, False)])
def test_a_candidate_keeps_fluency_and_sense(perplexity: float, lms: float, allowed: bool) -> None:
    rule = Rule(reference="gptq", perplexity_ratio=1.1, lms_drop=1.0)
    assert rule.allows({"perplexity": perplexity, "lms": lms}, {"perplexity": 20.0, "lms": 90.0}) is allowed
