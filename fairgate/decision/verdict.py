"""From a policy and item tables to a verdict. Pure: tables in, decision out.

Each line of the verdict compares a harm d with its margin by one-sided bounds [low, high] of a
paired, clustered, stratified bootstrap:

    pass    high <= margin
    fail    low > margin
    open    neither, or n below the minimum, or the margin below the noise floor

Any failed line rejects. Else any open line leaves the verdict inconclusive. Else the candidate is
approved. Passing needs every line, an intersection-union test: no correction for the number of
lines. Failing needs one, so the lower bounds over the groups of a check are Holm-adjusted
(fairgate/decision/bounds.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fairgate.benchmarks import items_of
from fairgate.contracts.records import Line, Outcome, Quantization, Status, Verdict
from fairgate.decision.bounds import high_bound, holm_low_bounds
from fairgate.decision.hypotheses import Hypothesis, hypotheses_of
from fairgate.decision.plan import detectable, n_needed
from fairgate.decision.policy import CheckPolicy, Policy
from fairgate.decision.reasons import reasons
from fairgate.decision.rules import RULES
from fairgate.metrics.bootstrap import bootstrap
from fairgate.metrics.flips import require_same_items
from fairgate.metrics.items import Items, benchmarks_of
from fairgate.metrics.noise import Noise
from fairgate.metrics.statistic import Array
from fairgate.support.errors import FairgateError


@dataclass(frozen=True)
class Decision:
    """The verdict, its reasons as sentences, and one line per check, group and cap."""

    verdict: Verdict
    reasons: list[str]
    checks: list[Line]


def decide(
    policy: Policy,
    candidate: pa.Table,
    reference: pa.Table,
    quantization: Quantization,
    noise: Noise | None = None,
) -> Decision:
    """Judge the candidate's items against the reference's.

    Args:
        policy: The checks, and how bounds are computed.
        candidate: Item table of the candidate.
        reference: Item table of the reference.
        quantization: How the candidate was made, for checks of its health.
        noise: Flips of the reference against itself. None means that it was not measured.

    Raises:
        UnequalItems: The tables differ in items, prompts, task versions, groups or tokens.
        FairgateError: A check on a benchmark that was not evaluated, or that asks for a noise floor
            that was not measured; a value that is not finite.
    """
    require_same_items(candidate, reference)
    evaluated = benchmarks_of(candidate)
    lines: dict[str, list[Line]] = defaultdict(list)
    by_benchmark: dict[str, list[CheckPolicy]] = defaultdict(list)
    for check in policy.checks:
        if RULES[check.rule].harm is None:
            lines[check.name] = [_health(check, quantization)]
            continue
        if check.benchmark not in evaluated:
            raise FairgateError(
                f"check {check.name!r} needs benchmark {check.benchmark!r}, which was not evaluated (there: {', '.join(evaluated)})",
                where="item table",
                remedy="add it to evaluate.tasks, or remove the check",
            )
        by_benchmark[check.benchmark].append(check)
    for benchmark, checks in by_benchmark.items():
        q, b = items_of(candidate, benchmark), items_of(reference, benchmark)
        hypotheses = [h for check in checks for h in hypotheses_of(check, q, b)]
        for hypothesis, line in zip(hypotheses, _judge(hypotheses, q, policy, noise), strict=True):
            lines[hypothesis.check.name].append(line)
    ordered = [line for check in policy.checks for line in lines[check.name]]
    verdict = _verdict(line.outcome for line in ordered)
    return Decision(verdict, reasons(verdict, ordered, policy.confidence), ordered)


def _verdict(outcomes: Iterable[Outcome]) -> Verdict:
    seen = set(outcomes)
    if Outcome.failed in seen:
        return Verdict.reject
    return Verdict.inconclusive if Outcome.open in seen else Verdict.approve


def _judge(hypotheses: list[Hypothesis], items: Items, policy: Policy, noise: Noise | None) -> list[Line]:
    """The lines of one benchmark, all under the same resampled clusters."""
    components = [part for h in hypotheses for part in (h.candidate, h.reference)]
    draws = bootstrap(components, items.strata, draws=policy.draws, seed=policy.seed)
    terms = [h.terms(q, b) for h, q, b in zip(hypotheses, draws[::2], draws[1::2], strict=True)]
    for hypothesis in hypotheses:
        _require_finite(hypothesis)
    lows = holm_low_bounds(hypotheses, terms, 1 - policy.confidence)
    floors = [_floor(hypothesis, noise) for hypothesis in hypotheses]
    return [
        _line(hypothesis, draws_of_terms, low, floor, policy.confidence)
        for hypothesis, draws_of_terms, low, floor in zip(hypotheses, terms, lows, floors, strict=True)
    ]


def _floor(hypothesis: Hypothesis, noise: Noise | None) -> float | None:
    """What the stack's own flips may move, in the margin's unit; None if the check does not ask."""
    if not hypothesis.check.above_noise:
        return None
    if noise is None or hypothesis.span is None:
        what = f"check {hypothesis.name!r} asks for a noise floor, and none was measured"
        remedy = "run `python -m stages.evaluate --recipe base --repeat`"
        raise FairgateError(what, where="gate.checks", remedy=remedy)
    return hypothesis.span * noise.floor(hypothesis.check.benchmark).rate


def _line(hypothesis: Hypothesis, terms: Array, low: float | None, floor: float | None, confidence: float) -> Line:
    q, b, harm = hypothesis.point()
    check, n, margin = hypothesis.check, hypothesis.n, hypothesis.margin
    high = smallest = None
    if low is not None:
        high = high_bound(hypothesis, terms, 1 - confidence)
        smallest = detectable(terms, confidence) if hypothesis.rule.compares else None
    below = floor is not None and margin < floor
    outcome = _outcome(low, high, margin, enough=n >= check.minimum_n and not below)
    needed = None
    if outcome is Outcome.open and not below:  # no number of items lifts a margin above the noise
        needed = n_needed(harm, low, high, margin, n, check.minimum_n)
    return Line(
        name=hypothesis.name,
        metric=check.metric,
        rule=hypothesis.rule.name,
        group=hypothesis.group,
        outcome=outcome,
        candidate=q,
        reference=None if check.kind == "flips" else b,  # flips belong to both models together
        harm=harm,
        low=low,
        high=high,
        margin=margin,
        n=n,
        n_minimum=check.minimum_n,
        n_needed=needed,
        reason=check.reason,
        items=hypothesis.candidate.items,
        detectable=smallest,
        floor=floor,
    )


def _require_finite(hypothesis: Hypothesis) -> None:
    if not np.isfinite(hypothesis.point()).all():
        group = f" in group {hypothesis.group!r}" if hypothesis.group else ""
        raise FairgateError(
            f"value of {hypothesis.check.metric!r} is not finite{group}",
            where=f"check {hypothesis.name!r}",
            remedy="look at the item table; a model with overflowing weights must not be judged",
        )


def _outcome(low: float | None, high: float | None, margin: float, *, enough: bool) -> Outcome:
    if not enough or low is None or high is None:
        return Outcome.open
    if high <= margin:
        return Outcome.passed
    return Outcome.failed if low > margin else Outcome.open


def _health(check: CheckPolicy, quantization: Quantization) -> Line:
    """A line on the candidate's records: modules that are not what was asked for."""
    unhealthy = (Status.fallback_rtn, Status.stopped)
    bad = float(sum(module.status in unhealthy for module in quantization.modules))
    n = len(quantization.modules)
    outcome = _outcome(bad, bad, check.margin, enough=n >= check.minimum_n)
    return Line(
        name=check.name,
        metric=check.metric,
        rule=check.rule,
        group=None,
        outcome=outcome,
        candidate=bad,
        reference=None,
        harm=bad,
        low=bad,
        high=bad,
        margin=check.margin,
        n=n,
        n_minimum=check.minimum_n,
        n_needed=check.minimum_n if outcome is Outcome.open else None,
        reason=check.reason,
        items=n,
    )
