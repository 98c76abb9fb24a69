"""What a sample size can decide: how many units an open line needs, and what harm is detectable."""

from __future__ import annotations

import math

from scipy.stats import norm

from fairgate.metrics.statistic import Array

_POWER = 0.8


def n_needed(harm: float, low: float | None, high: float | None, margin: float, n: int, minimum: int) -> int | None:
    """Units at which the bound would reach the margin if the estimate stayed.

    The width of an interval shrinks as 1/sqrt(n), so this is n * (width / distance)^2, in the
    direction that the estimate points to. It is the sample size of the bootstrap's own variance
    with 50 % power.

    Returns:
        At least `minimum`; without bounds the minimum, but two or more; None means that the
        estimate lies on the margin, which no number of units decides.
    """
    if low is None or high is None:
        return max(minimum, 2)
    if harm <= margin:
        width, distance = high - harm, margin - harm
    else:
        width, distance = harm - low, harm - margin
    if distance == 0 or not math.isfinite(needed := n * (width / distance) ** 2):
        return None
    return max(minimum, math.ceil(needed))


def detectable(terms: Array, confidence: float) -> float:
    """The smallest margin that a harmless candidate meets with 80 % power, in the harm's unit.

    Args:
        terms: Draws of the harm's terms [draws, sides, ways].
        confidence: Of the one-sided bound that has to stay within the margin.
    """
    return float((norm.ppf(confidence) + norm.ppf(_POWER)) * terms.std(0).min())
