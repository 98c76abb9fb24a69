"""One-sided bounds [low, high] of a harm, from the draws of a paired, clustered bootstrap.

A bootstrap percentile is corrected three times, always away from a decision: for few clusters
(fairgate/metrics/bootstrap.py), by half a counting step, and by the rule of three. Among the groups
of a check the lower bounds are Holm-adjusted: the chance that any group of a harmless candidate
fails stays below alpha.

Terms of a harm are draws [draws, sides, ways]; fairgate/decision/rules.py explains them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from fairgate.decision.hypotheses import Hypothesis, harm_of
from fairgate.metrics.bootstrap import error, lower, upper
from fairgate.metrics.statistic import Array


def high_bound(hypothesis: Hypothesis, terms: Array, alpha: float) -> float:
    """Upper bound of the harm with error `alpha`."""
    harm = hypothesis.point()[2]
    resampled = _upper(terms, alpha, hypothesis.n) + _half_step(hypothesis)
    return max(resampled, harm + _rule_of_three(hypothesis, alpha))


def holm_low_bounds(hypotheses: Sequence[Hypothesis], terms: Sequence[Array], alpha: float) -> list[float | None]:
    """Lower bounds with error `alpha` in each family; None where resampling gives no bounds.

    Holm's procedure takes the clearest of m hypotheses at alpha / m, and one fewer after each that
    fails.
    """
    families: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for i, hypothesis in enumerate(hypotheses):
        if _bounded(hypothesis, terms[i]):
            tail = (harm_of(terms[i]) <= hypothesis.margin).mean()
            families[hypothesis.family].append((error(float(tail), hypothesis.n), i))
    lows: list[float | None] = [None] * len(hypotheses)
    for family in families.values():
        left = len(family)
        for _, i in sorted(family):
            lows[i] = low = _low_bound(hypotheses[i], terms[i], alpha, left)
            left -= low > hypotheses[i].margin
    return lows


def _low_bound(hypothesis: Hypothesis, terms: Array, alpha: float, left: int) -> float:
    """Lower bound of the harm with error `alpha` shared by the `left` hypotheses of its family."""
    # Use the harm itself here. Resampling can only shrink it, which makes a "fail" conservative.
    low = lower(harm_of(terms), alpha / left, hypothesis.n) - _half_step(hypothesis)
    return min(low, hypothesis.point()[2] - _rule_of_three(hypothesis, alpha))


def _bounded(hypothesis: Hypothesis, terms: Array) -> bool:
    """Whether resampling gives bounds.

    It gives none for a single cluster, nor where some draws miss all clusters of a small group. (A
    target term may carry items of two groups; it is drawn with one of them.) Such a line stays
    open, so it never approves.
    """
    return hypothesis.n > 1 and bool(np.isfinite(terms).all())


def _upper(terms: Array, alpha: float, clusters: int) -> float:
    """Upper bound of the draws: the largest over the sides of the smallest over the ways."""
    bounds = [[upper(way, alpha, clusters) for way in side.T] for side in np.moveaxis(terms, 1, 0)]
    return max(min(ways) for ways in bounds)


def _rule_of_three(hypothesis: Hypothesis, alpha: float) -> float:
    """Least half-width of a bound, in the harm's unit.

    If none of n items changed, up to -ln(alpha) / n of all items may still change (3/n at 95 %).
    """
    span = hypothesis.span
    return 0.0 if span is None else span * -math.log(alpha) / hypothesis.candidate.items


def _half_step(hypothesis: Hypothesis) -> float:
    """Continuity correction, in the harm's unit.

    Counts move in steps of one item, so a bound between two steps is too close by half a step.
    """
    span = hypothesis.span
    return 0.0 if span is None else span / (2 * hypothesis.candidate.items)
