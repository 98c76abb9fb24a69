"""Verdicts on item tables whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fairgate.benchmarks import METRICS, items_of
from fairgate.contracts.records import Outcome, Status, Verdict
from fairgate.decision.plan import n_needed
from fairgate.decision.policy import Policy
from fairgate.decision.verdict import Decision, decide
from fairgate.metrics.bootstrap import bootstrap, lower, upper
from fairgate.metrics.flips import UnequalItems
from fairgate.support.errors import FairgateError
from tests.items import CROWS_CHECK, STEREOTYPED, choices, crows, flipped, quantization, row, stereoset, table, windows

GROUPS = ["age", "gender", "race"]


def policy(*checks: dict[str, Any], **keys: Any) -> Policy:
    known = {"candidate": "fair", "reference": "base", "confidence": 0.95, "draws": 10_000, "seed": 0}
    return Policy.model_validate({**known, "checks": [{**CROWS_CHECK, **check} for check in checks], **keys})


def judge(rules: Policy, q: list[dict[str, Any]], b: list[dict[str, Any]], *statuses: Status) -> Decision:
    return decide(rules, table(*q), table(*b), quantization("fair", *statuses))


def sides(n: int, share: float) -> np.ndarray:
    """Exactly `share` of n, spread evenly."""
    return np.arange(n) * 7919 % n < round(share * n)


def test_an_equal_candidate_is_approved_with_enough_items() -> None:
    rows = crows(sides(1000, 0.6), GROUPS)
    decision = judge(policy({}, {"name": "types", "by": "group"}), rows, rows)
    assert decision.verdict is Verdict.approve
    assert [row.group for row in decision.checks] == [None, *GROUPS]
    overall = decision.checks[0]
    assert (overall.candidate, overall.reference, overall.harm, overall.n) == (60.0, 60.0, 0.0, 1000)
    # Rule of three: nothing changed in 1,000 items, so up to 0.3 % may.
    assert overall.high == pytest.approx(0.29957, abs=1e-4) and overall.low == -overall.high
    assert overall.n_needed is None and "All 4 lines" in decision.reasons[0]


def test_bounds_allow_for_steps_of_one_item() -> None:
    before = sides(400, 0.6)
    after = flipped(before, 0.2, np.random.default_rng(0))
    (check,) = judge(policy({}), crows(after), crows(before)).checks
    q, b = (items_of(table(*crows(side)), "crows_pairs") for side in (after, before))
    parts = [METRICS["crows_pairs.pct_stereotype"].components(items) for items in (q, b)]
    dq, db = bootstrap(parts, q.strata, draws=10_000, seed=0)
    step = 100 / 400
    assert check.high == pytest.approx(upper(dq - db, 0.05, 400) + step / 2)  # both are far above 50
    assert check.low == pytest.approx(lower(abs(dq - 50) - abs(db - 50), 0.05, 400) - step / 2)


def test_no_change_in_few_items_proves_little() -> None:
    rows = crows(sides(60, 0.6))
    (check,) = judge(policy({"minimum_n": 50, "margin": 3.0}), rows, rows).checks
    assert check.outcome is Outcome.open and check.high == pytest.approx(100 * 2.9957 / 60, rel=1e-4)


def test_a_slightly_better_candidate_is_approved() -> None:
    before = sides(1500, 0.60)
    after = before.copy()
    after[np.flatnonzero(before)[:60]] = False
    decision = judge(policy({}), crows(after), crows(before))
    assert decision.verdict is Verdict.approve and decision.checks[0].harm == pytest.approx(-4.0)


def test_a_worse_candidate_is_rejected_with_a_sentence() -> None:
    decision = judge(policy({}), crows(sides(1000, 0.75)), crows(sides(1000, 0.6)))
    assert decision.verdict is Verdict.reject
    assert decision.reasons[0].startswith(
        "bias failed: for crows_pairs.pct_stereotype the distance from the neutral value grew by 15 (at least "
    )
    assert decision.reasons[0].endswith("the margin is 3.")


def test_distance_from_neutral_counts_on_both_sides() -> None:
    (check,) = judge(policy({}), crows(sides(1000, 0.25)), crows(sides(1000, 0.6))).checks
    assert check.harm == pytest.approx(15) and check.outcome is Outcome.failed


def test_few_items_are_inconclusive_with_the_number_needed() -> None:
    before = sides(200, 0.6)
    after = before.copy()
    after[np.flatnonzero(before)[:20]] = False
    after[np.flatnonzero(~before)[:20]] = True
    decision = judge(policy({}), crows(after), crows(before))
    (check,) = decision.checks
    assert decision.verdict is Verdict.inconclusive and check.outcome is Outcome.open
    # f = 0.2: half-width 1.645 sqrt(0.2 / 200) = 5.2 points, so a margin of 3 asks for (5.2 / 3)^2
    # times as many, within the corrections.
    assert check.n_needed == pytest.approx(200 * (5.2 / 3) ** 2, rel=0.25)
    assert check.detectable == pytest.approx(2.486 * 100 * np.sqrt(0.2 / 200), rel=0.03)
    assert f"about {check.n_needed:,} needed" in decision.reasons[0]


def test_a_group_below_the_minimum_is_open_and_shown_whatever_its_value() -> None:
    # Boundary: 100 items are enough, 99 are not, though both are far beyond the margin.
    for n, outcome in ((100, Outcome.failed), (99, Outcome.open)):
        decision = judge(policy({}), crows(sides(n, 0.95)), crows(sides(n, 0.5)))
        assert decision.checks[0].outcome is outcome, n
    assert "n = 99, below the minimum of 100" in decision.reasons[0]
    assert decision.checks[0].n_needed == 100


def test_a_single_cluster_has_no_bounds_and_stays_open() -> None:
    rows = stereoset(sides(40, 0.5), per_term=40)
    decision = judge(policy({"metric": "stereoset.ss", "minimum_n": 1}), rows, rows)
    (check,) = decision.checks
    assert (check.outcome, check.low, check.high, check.n, check.items) == (Outcome.open, None, None, 1, 40)
    assert check.n_needed == 2


def test_a_group_of_one_item_stays_open_beside_the_others() -> None:
    """It is resampled with the largest group, so some draws hold none of it."""
    rows = crows(sides(600, 0.6), GROUPS)
    rows[0]["group"] = "lonely"
    decision = judge(policy({"by": "group", "minimum_n": 1}), rows, rows)
    outcomes = {check.group: (check.outcome, check.n) for check in decision.checks}
    assert outcomes["lonely"] == (Outcome.open, 1)
    assert decision.verdict is Verdict.inconclusive


def test_a_small_group_that_shares_its_clusters_with_another_stays_open() -> None:
    """A target term with items of two groups is drawn with one of them.

    So some draws hold none of the few terms of the other group.
    """
    rows = stereoset(sides(400, 0.5), per_term=10)
    for number, item in enumerate(rows):
        item["group"] = "gender" if number in (0, 10) else "race"
    decision = judge(policy({"metric": "stereoset.ss", "by": "group", "minimum_n": 1}), rows, rows)
    checks = {check.group: check for check in decision.checks}
    assert (checks["gender"].outcome, checks["gender"].n, checks["gender"].low) == (Outcome.open, 2, None)
    assert checks["race"].low is not None
    assert decision.verdict is Verdict.inconclusive


def test_any_failure_outweighs_open_lines_and_passes() -> None:
    fail = crows(sides(1000, 0.8)) + choices("piqa", sides(20, 0.6))
    base = crows(sides(1000, 0.6)) + choices("piqa", sides(20, 0.6))
    rules = policy({}, {"name": "piqa", "metric": "piqa.acc", "rule": "drop", "margin": 0.01})
    decision = judge(rules, fail, base)
    assert decision.verdict is Verdict.reject
    assert [check.outcome for check in decision.checks] == [Outcome.failed, Outcome.open]
    assert len(decision.reasons) == 2


def test_retain_needs_no_division_and_pairs_items() -> None:
    right = sides(600, 0.5)
    rules = policy({"metric": "piqa.acc", "rule": "retain", "ratio": 0.9, "margin": 0.0})
    (kept,) = judge(rules, choices("piqa", right), choices("piqa", right)).checks
    assert kept.harm == pytest.approx(-0.05) and kept.outcome is Outcome.passed
    lost = right & ~sides(600, 0.4)
    (check,) = judge(rules, choices("piqa", lost), choices("piqa", right)).checks
    assert check.harm == pytest.approx(0.9 * 0.5 - lost.mean()) and check.outcome is Outcome.failed


def test_drop_rise_relative_rise_and_cap_measure_what_they_say() -> None:
    loglik = np.random.default_rng(0).normal(-300, 5, 60)
    text, worse = windows(loglik), windows(loglik - 30)
    ratio = float(np.exp(0.3))
    ppl = {"metric": "perplexity.ppl", "minimum_n": 30}
    rules = policy(
        {"name": "relative", "rule": "relative_rise", "margin": 0.15, **ppl},
        {"name": "rise", "rule": "rise", "margin": 50.0, "cap": 20.0, **ppl},
        {"name": "limit", "rule": "cap", "margin": 30.0, **ppl},
    )
    relative, rise, cap, limit = judge(rules, worse, text).checks
    assert relative.harm == pytest.approx(ratio - 1) and relative.outcome is Outcome.failed
    assert rise.harm == pytest.approx(cap.harm - cap.harm / ratio) and rise.outcome is Outcome.passed
    assert (cap.name, cap.rule, cap.margin, cap.outcome) == ("rise.cap", "cap", 20.0, Outcome.failed)
    assert limit.harm == cap.harm == limit.candidate and limit.outcome is Outcome.passed
    drop = policy({"metric": "piqa.acc", "rule": "drop", "margin": 0.05})
    (check,) = judge(drop, choices("piqa", sides(300, 0.5)), choices("piqa", sides(300, 0.7))).checks
    assert check.harm == pytest.approx(0.2) and check.outcome is Outcome.failed


def test_a_cap_holds_even_where_the_base_is_no_better() -> None:
    rows = crows(sides(1000, 0.8))
    decision = judge(policy({"cap": 15.0}), rows, rows)
    assert [check.outcome for check in decision.checks] == [Outcome.passed, Outcome.failed]
    assert decision.verdict is Verdict.reject
    below = crows(sides(1000, 0.2))
    assert judge(policy({"cap": 15.0}), below, below).checks[1].harm == pytest.approx(30)


def test_new_bias_sees_flips_that_the_mean_hides() -> None:
    before = sides(1000, 0.5)
    after = before.copy()
    after[np.flatnonzero(before)[:250]] = False
    after[np.flatnonzero(~before)[:250]] = True
    rules = policy({}, {"name": "new", "metric": "crows_pairs.new_bias", "rule": "new_bias", "margin": 0.05, "cap": 0.1})
    mean, net, harmful = judge(rules, crows(after), crows(before)).checks
    assert mean.harm == 0 and net.harm == 0
    assert harmful.harm == 0.25 and harmful.outcome is Outcome.failed


@pytest.mark.parametrize("bad", [Status.fallback_rtn, Status.stopped])
def test_health_counts_modules_that_are_not_what_was_asked_for(bad: Status) -> None:
    rows = crows(sides(1000, 0.6))
    rules = policy({"metric": "quantization.fallback_rtn", "rule": "health", "margin": 1.0, "minimum_n": 3})
    ok = Status.ok
    assert judge(rules, rows, rows, ok, ok, bad).verdict is Verdict.approve
    assert judge(rules, rows, rows, ok, bad, bad).verdict is Verdict.reject
    assert judge(rules, rows, rows, ok, ok).verdict is Verdict.inconclusive


def test_needed_items_follow_the_square_of_the_widths() -> None:
    assert n_needed(1.0, -1.0, 3.0, 2.0, 100, 10) == 400  # passing: width 2, distance 1
    assert n_needed(3.0, 1.0, 5.0, 2.0, 100, 10) == 400  # failing
    assert n_needed(2.0, 1.0, 3.0, 2.0, 100, 10) is None  # on the margin
    assert n_needed(0.0, -1.0, 1.0, 2.0, 100, 300) == 300
    assert n_needed(0.0, None, None, 2.0, 1, 300) == 300


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "other"), ("metric", "crows_pairs.new_bias"), ("rule", "cap"), ("by", "group"), ("margin", 9.0), ("minimum_n", 600),
        ("reason", "another"), ("cap", 20.0), ("ratio", 0.5), ("confidence", 0.9), ("draws", 12_000), ("seed", 1),
    ],
)  # fmt: skip
def test_every_policy_field_changes_something(field: str, value: Any) -> None:
    before = sides(500, 0.6)
    after = flipped(before, 0.2, np.random.default_rng(0))
    q, b = crows(after, GROUPS) + choices("piqa", after), crows(before, GROUPS) + choices("piqa", before)
    first: dict[str, Any] = {"metric": "piqa.acc", "rule": "retain", "ratio": 0.9, "margin": 0.0} if field == "ratio" else {}
    changed = {**first, field: value} if field in CROWS_CHECK or field in ("cap", "ratio") else first
    if field == "metric":
        changed["rule"] = "new_bias"
    keys = {} if changed is not first else {field: value}
    assert judge(policy(first), q, b).checks != judge(policy(changed, **keys), q, b).checks


def test_a_check_on_an_unevaluated_benchmark_is_an_error() -> None:
    rows = crows(sides(100, 0.5))
    with pytest.raises(FairgateError, match=r"'bias' needs benchmark 'piqa', which was not evaluated \(there: crows_pairs\)"):
        judge(policy({"metric": "piqa.acc", "rule": "drop"}), rows, rows)


def test_groups_are_asked_of_items_that_have_none() -> None:
    rows = choices("piqa", sides(100, 0.5))
    with pytest.raises(FairgateError, match="'piqa' have no groups"):
        judge(policy({"metric": "piqa.acc", "rule": "drop", "by": "group"}), rows, rows)


def test_unequal_tables_are_an_error_even_outside_the_checks() -> None:
    rows = crows(sides(100, 0.5))
    with pytest.raises(UnequalItems):
        judge(policy({}), rows, [*rows, row("piqa", 0, STEREOTYPED, gold=0)])


def test_a_value_that_is_not_finite_is_an_error() -> None:
    fine = windows(np.full(40, -300.0))
    # exp overflows: every log-likelihood is finite, the perplexity is not.
    broken = windows(np.full(40, -1e6))
    rules = policy({"metric": "perplexity.ppl", "rule": "relative_rise", "margin": 0.1, "minimum_n": 1})
    with pytest.raises(FairgateError, match=r"check 'bias': value of 'perplexity\.ppl' is not finite"):
        judge(rules, broken, fine)


def _rates(rules: Policy, groups: list[str], q_share: float, b_share: float, n: int, runs: int) -> dict[Verdict, float]:
    """How often independent samples of one truth get each verdict.

    A fifth of the candidate's answers are drawn anew.
    """
    rng = np.random.default_rng(11)
    verdicts = []
    for _ in range(runs):
        common = rng.random(n)
        own = np.where(rng.random(n) < 0.2, rng.random(n), common)
        verdicts.append(judge(rules, crows(own < q_share, groups), crows(common < b_share, groups)).verdict)
    return {verdict: verdicts.count(verdict) / runs for verdict in Verdict}


@pytest.mark.parametrize(
    ("reference", "approved"),
    [(0.65, 0.05), (0.5, 0.10)],  # at neutral itself two bounds of 5 % stand side by side
)
def test_false_approval_and_false_rejection_stay_at_their_level(reference: float, approved: float) -> None:
    # The truth lies exactly on the margin, the hardest case.
    # 150 runs add 2 standard errors of 0.018 and 0.024.
    rates = _rates(policy({"margin": 6.0, "minimum_n": 50}), ["all"], reference + 0.06, reference, 120, 150)
    assert rates[Verdict.approve] <= approved + 2 * (approved * (1 - approved) / 150) ** 0.5
    assert rates[Verdict.reject] <= 0.086


def test_a_harmless_candidate_of_a_neutral_reference_is_approved() -> None:
    rates = _rates(policy({"margin": 6.0, "minimum_n": 50}), ["all"], 0.5, 0.5, 400, 20)
    assert rates[Verdict.approve] >= 0.8


def _group(name: str, n: int, worse: int, better: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    before = sides(n, 0.6)
    after = before.copy()
    after[np.flatnonzero(before)[:better]] = False
    after[np.flatnonzero(~before)[:worse]] = True
    q, b = ([r | {"item_id": name + r["item_id"], "cluster": name + r["cluster"]} for r in crows(side, [name])] for side in (after, before))
    return q, b


def _grouped(**counts: tuple[int, int]) -> list[Outcome]:
    parts = [_group(name, 400, *pair) for name, pair in counts.items()]
    q, b = ([row for part in parts for row in part[side]] for side in (0, 1))
    return [check.outcome for check in judge(policy({"margin": 2.0, "by": "group"}), q, b).checks]


def test_groups_share_the_chance_of_a_false_rejection() -> None:
    # Harm 5 points, standard error 1.56: beyond the margin of 2 at 5 %,
    # but neither at 5 % / 2 nor at 5 % / 4 (Holm).
    weak, strong = (30, 10), (90, 10)
    assert _grouped(a=weak) == [Outcome.failed]
    assert _grouped(a=weak, b=weak, c=weak, d=weak) == [Outcome.open] * 4
    # A clear failure leaves the family, and the rest is judged at the full level.
    assert _grouped(a=weak, b=strong) == [Outcome.failed] * 2


def test_all_checks_of_a_full_evaluation_take_seconds() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(1508) < 0.6
    after = flipped(before, 0.2, rng)
    groups = [f"type {i}" for i in range(9)]
    rules = policy(*({"name": f"check_{i}", "by": by, "cap": 15.0} for i, by in enumerate(("overall", "group", "group"))))
    tables: list[pa.Table] = [table(*crows(side, groups)) for side in (after, before)]
    decision = decide(rules, *tables, quantization("fair"))
    again = decide(rules, *tables, quantization("fair"))
    assert decision == again
    assert len(decision.checks) == 2 * (1 + 9 + 9)
