"""A new rule: the share of the reference's score that the candidate lost."""

from __future__ import annotations

from fairgate.decision.rules import Rule, Standard, one_term
from fairgate.metrics.statistic import Array


def lost_share(q: Array, b: Array, standard: Standard) -> Array:
    """1 - q / b, positive where the candidate is worse."""
    return one_term(1 - q / b)


RELATIVE_DROP = Rule(
    name="relative_drop",
    kinds=("higher",),  # metrics of which more is better
    formula="1 − q / b",
    sentence="lost a share of",
    harm=lost_share,
)
