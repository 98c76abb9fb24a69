"""From policy and item tables to a verdict. Pure: tables in, decision out.

Each line compares a harm d with its margin by one-sided bounds [low, high] of a paired, clustered, stratified bootstrap:

    pass: high <= margin      fail: low > margin      open: neither, or n below the minimum, or the margin below the noise floor

Any fail rejects; else any open line leaves it inconclusive; else the candidate is approved. Passing needs every line, an
intersection-union test: no correction for the number of lines. Failing needs one, so among the groups of a check the lower bounds
are Holm-adjusted: the chance that any group of a harmless candidate fails stays below 1 - confidence.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.stats import norm

from fairgate.contracts.records import Check, Outcome, Quantization, Status, Verdict
from fairgate.decision.policy import CheckPolicy, Policy
from fairgate.decision.rules import Line, lines_of
from fairgate.metrics.bootstrap import bootstrap, error, lower, upper
from fairgate.metrics.estimates import Items, benchmarks_of
from fairgate.metrics.flips import require_same_items
from fairgate.metrics.noise import Noise
from fairgate.metrics.statistic import Array
from fairgate.support.errors import FairgateError

_POWER = 0.8


@dataclass(frozen=True)
class Decision:
    """The verdict, its reasons as sentences, and one line per check, group and cap."""

    verdict: Verdict
    reasons: list[str]
    checks: list[Check]


def decide(policy: Policy, candidate: pa.Table, reference: pa.Table, quantization: Quantization, noise: Noise | None = None) -> Decision:
    """Judge the candidate's items against the reference's; `noise` is the reference against itself, for checks that ask for it.

    Raises:
        UnequalItems: the tables differ in items, prompts, task versions, groups or tokens.
        FairgateError: a check on a benchmark that was not evaluated, or whose noise floor was not measured though it asks for it;
            a value that is not finite; another recipe's records.
    """
    require_same_items(candidate, reference)
    evaluated = benchmarks_of(candidate)
    rows: dict[str, list[Check]] = defaultdict(list)
    by_benchmark: dict[str, list[CheckPolicy]] = defaultdict(list)
    for check in policy.checks:
        if check.rule == "health":
            rows[check.name] = [_health(check, quantization)]
            continue
        if check.benchmark not in evaluated:
            raise FairgateError(
                f"check {check.name!r} needs benchmark {check.benchmark!r}, which was not evaluated (there: {', '.join(evaluated)})",
                where="item table",
                remedy="add it to evaluate.tasks, or remove the check",
            )
        by_benchmark[check.benchmark].append(check)
    for benchmark, checks in by_benchmark.items():
        q, b = Items.of(candidate, benchmark), Items.of(reference, benchmark)
        lines = [line for check in checks for line in lines_of(check, q, b)]
        for line, row in zip(lines, _judge(lines, q, policy, noise), strict=True):
            rows[line.check.name].append(row)
    ordered = [row for check in policy.checks for row in rows[check.name]]
    verdict = _verdict(row.outcome for row in ordered)
    return Decision(verdict, _reasons(verdict, ordered, policy), ordered)


def _verdict(outcomes: Iterable[Outcome]) -> Verdict:
    seen = set(outcomes)
    if Outcome.failed in seen:
        return Verdict.reject
    return Verdict.inconclusive if Outcome.open in seen else Verdict.approve


def _judge(lines: list[Line], items: Items, policy: Policy, noise: Noise | None) -> list[Check]:
    """The lines of one benchmark, all under the same resampled clusters."""
    parts = [part for line in lines for part in (line.candidate, line.reference)]
    draws = bootstrap(parts, items.strata, draws=policy.draws, seed=policy.seed)
    alpha = 1 - policy.confidence
    harms = [line.harm(draws[2 * i], draws[2 * i + 1]) for i, line in enumerate(lines)]
    for line in lines:
        _require_finite(line, np.array(_point(line)))
    lows = _holm_lows(lines, harms, alpha)
    floors = [_floor(line, noise) for line in lines]
    return [_row(line, harm, low, floor, policy.confidence) for line, harm, low, floor in zip(lines, harms, lows, floors, strict=True)]


def _floor(line: Line, noise: Noise | None) -> float | None:
    """What the stack's own flips may move, in the unit of the margin; None where the check does not ask."""
    if not line.check.above_noise:
        return None
    if noise is None or line.span is None:
        what = f"check {line.name!r} asks for a noise floor, and none was measured"
        raise FairgateError(what, where="gate.checks", remedy="run `python -m stages.evaluate --recipe base --repeat`")
    return line.span * noise.floor(line.check.benchmark).rate


def _holm_lows(lines: list[Line], harms: list[Array], alpha: float) -> list[float | None]:
    """Lower bounds, Holm-adjusted within each family: the clearest line at alpha/m, and after each failure one line fewer."""
    families: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for i, line in enumerate(lines):
        if _bounded(line, harms[i]):
            tail = (_worst(harms[i]) <= line.margin).mean()
            families[line.family].append((error(float(tail), line.candidate.clusters), i))
    lows: list[float | None] = [None] * len(lines)
    for family in families.values():
        left = len(family)
        for _, i in sorted(family):
            line = lines[i]
            # The harm itself, draw by draw: what resampling takes off it only makes a failure harder to claim.
            low = lower(_worst(harms[i]), alpha / left, line.candidate.clusters) - _half_step(line)
            lows[i] = low = min(low, _point(line)[2] - _rule_of_three(line, alpha))
            left -= low > line.margin
    return lows


def _row(line: Line, harms: Array, low: float | None, floor: float | None, confidence: float) -> Check:
    q, b, harm = _point(line)
    n, alpha = line.candidate.clusters, 1 - confidence
    high = detectable = None
    if low is not None:
        high = max(_upper(harms, alpha, n) + _half_step(line), harm + _rule_of_three(line, alpha))
        # A harmless candidate still has an absolute value, so a cap has no detectable harm.
        detectable = None if line.rule == "cap" else float((norm.ppf(confidence) + norm.ppf(_POWER)) * harms.std(0).min())
    below = floor is not None and line.margin < floor
    outcome = _outcome(low, high, line.margin, enough=n >= line.check.minimum_n and not below)
    return Check(
        name=line.name,
        metric=line.check.metric,
        rule=line.rule,
        group=line.group,
        outcome=outcome,
        candidate=q,
        reference=None if line.check.rule == "new_bias" else b,
        harm=harm,
        low=low,
        high=high,
        margin=line.margin,
        n=n,
        n_minimum=line.check.minimum_n,
        # No number of items lifts a margin above the noise of the stack.
        n_needed=n_needed(harm, low, high, line.margin, n, line.check.minimum_n) if outcome is Outcome.open and not below else None,
        reason=line.check.reason,
        items=line.candidate.items,
        detectable=detectable,
        floor=floor,
    )


def _bounded(line: Line, harms: Array) -> bool:
    """Whether resampling bounds the harm: not for a single cluster, nor where some draws miss all of a small group's clusters.

    (A target term may carry items of two groups; it is drawn with one of them.) Such a line stays open, so it never approves.
    """
    return line.candidate.clusters > 1 and bool(np.isfinite(harms).all())


def _worst(harms: Array) -> Array:
    """The harm [...] of terms [..., sides, ways]."""
    return np.asarray(harms.min(-1).max(-1))


def _upper(harms: Array, alpha: float, clusters: int) -> float:
    """Upper bound of a harm with draws [draws, sides, ways]: the largest over sides of the smallest over ways."""
    bounds = [[upper(way, alpha, clusters) for way in side.T] for side in np.moveaxis(harms, 1, 0)]
    return max(min(ways) for ways in bounds)


def _point(line: Line) -> tuple[float, float, float]:
    q, b = line.candidate.value, line.reference.value
    return q, b, float(_worst(line.harm(np.array(q), np.array(b))))


def _rule_of_three(line: Line, alpha: float) -> float:
    """Least half-width of a bound: where no item changed in n, up to -ln(alpha)/n of all may (3/n at 95 %)."""
    return 0.0 if line.span is None else line.span * -math.log(alpha) / line.candidate.items


def _half_step(line: Line) -> float:
    """Continuity correction: counts move in steps of one item, and a bound between two steps would be too close by half of one."""
    return 0.0 if line.span is None else line.span / (2 * line.candidate.items)


def _require_finite(line: Line, values: Array) -> None:
    if not np.isfinite(values).all():
        raise FairgateError(
            f"value of {line.check.metric!r} is not finite" + (f" in group {line.group!r}" if line.group else ""),
            where=f"check {line.name!r}",
            remedy="look at the item table; a model with overflowing weights must not be judged",
        )


def _outcome(low: float | None, high: float | None, margin: float, *, enough: bool) -> Outcome:
    if not enough or low is None or high is None:
        return Outcome.open
    if high <= margin:
        return Outcome.passed
    return Outcome.failed if low > margin else Outcome.open


def n_needed(harm: float, low: float | None, high: float | None, margin: float, n: int, minimum: int) -> int | None:
    """Units at which the bound would reach the margin if the estimate stayed: n * (width / distance)^2, at least the minimum.

    The width shrinks as 1/sqrt(n), so this is the sample size of the bootstrap's own variance with 50 % power, in the direction
    the estimate points to. None where it lies on the margin; the minimum (two at least) where there are no bounds yet.
    """
    if low is None or high is None:
        return max(minimum, 2)
    width, distance = (high - harm, margin - harm) if harm <= margin else (harm - low, harm - margin)
    if distance == 0 or not math.isfinite(needed := n * (width / distance) ** 2):
        return None
    return max(minimum, math.ceil(needed))


def _health(check: CheckPolicy, quantization: Quantization) -> Check:
    bad = float(sum(module.status in (Status.fallback_rtn, Status.stopped) for module in quantization.modules))
    n = len(quantization.modules)
    outcome = _outcome(bad, bad, check.margin, enough=n >= check.minimum_n)
    return Check(
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


_HARMS = {
    "neutral": "the distance from the neutral value grew by",
    "drop": "fell by",
    "rise": "rose by",
    "retain": "the loss beyond what may be lost is",
    "relative_rise": "rose by a share of",
    "cap": "the absolute value to be capped is",
    "new_bias": "the share of items newly stereotyped, less those that turned back, is",
    "health": "modules rounded to nearest for want of a factorization, or whose learning stopped early:",
}


def _reasons(verdict: Verdict, checks: list[Check], policy: Policy) -> list[str]:
    """Sentences: each failure; the open lines of each check together; or what approval rests on."""
    if verdict is Verdict.approve:
        return [
            f"All {len(checks)} lines exclude harm beyond their margin, each at {policy.confidence:.0%} confidence.",
            "No detected harm is not proof of none: the column 'detectable' says what each line could have shown.",
        ]
    sentences = [_failure(row) for row in checks if row.outcome is Outcome.failed]
    undecided: dict[str, list[Check]] = defaultdict(list)
    for row in checks:
        if row.outcome is Outcome.open:
            undecided[row.name].append(row)
    return sentences + [_undecided(name, rows) for name, rows in undecided.items()]


def _failure(row: Check) -> str:
    where = f"{row.metric} in group {row.group}" if row.group else row.metric
    bounds = f" (at least {row.low:.3g})" if row.low != row.high else ""
    return f"{row.name} failed: for {where} {_HARMS[row.rule]} {row.harm:.3g}{bounds}; the margin is {row.margin:g}."


def _undecided(name: str, rows: list[Check]) -> str:
    parts = []
    for row in rows:
        units = f"n = {row.n}" if row.n >= row.n_minimum else f"n = {row.n}, below the minimum of {row.n_minimum}"
        bounds = "" if row.low is None or row.high is None else f", harm {row.low:.3g} to {row.high:.3g} around the margin {row.margin:g}"
        needed = "" if row.n_needed is None else f", about {row.n_needed:,} needed"
        if row.floor is not None and row.margin < row.floor:
            needed = f"; the stack by itself changes {row.floor:.3g}, so this margin cannot be judged"
        parts.append(f"{row.group or 'overall'} ({units}{bounds}{needed})")
    return f"{name} is undecided: {'; '.join(parts)}."
