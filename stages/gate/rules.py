"""What each rule measures: harm as a function of the candidate's and the reference's value, positive where the candidate is worse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from stages.common.compare import NET_NEW_BIAS, NEWLY_BIASED
from stages.common.errors import FairgateError
from stages.common.metrics import Array, Components, Items, metric
from stages.gate.policy import CheckPolicy

# (candidate [...], reference [...]) -> harms [..., sides]. A cap around a neutral value has two sides; both must hold
# (two one-sided tests), and one is enough to fail.
Harm = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Line:
    """One future line of the verdict: a check, overall or in one group, or the absolute cap beside it."""

    name: str
    check: CheckPolicy
    rule: str
    group: str | None
    margin: float
    candidate: Components
    reference: Components
    harm: Harm
    span: float | None

    @property
    def family(self) -> tuple[str, str]:
        """Lines of one check over groups: the family of the claim 'some group got worse'."""
        return self.check.name, self.rule


def lines_of(check: CheckPolicy, candidate: Items, reference: Items) -> Iterator[Line]:
    """The lines of one check on the items of its benchmark.

    Raises:
        FairgateError: `by: group` on a benchmark whose items have no groups.
    """
    groups: list[str | None] = [None]
    harm: Harm
    cap_harm: Harm
    if check.by == "group":
        groups = [*candidate.groups]
        if not groups:
            what = f"items of {candidate.benchmark!r} have no groups"
            raise FairgateError(what, where=f"check {check.name!r}", remedy="write by: overall")
    for group in groups:
        if check.rule == "new_bias":
            statistic, capped = NET_NEW_BIAS, NEWLY_BIASED
            values = [s.components(candidate, reference, group=group) for s in (statistic, statistic, capped, capped)]
            harm, cap_harm = _value, _value
        else:
            statistic = metric(check.metric)
            values = [statistic.components(items, group=group) for items in (candidate, reference)] * 2
            harm, cap_harm = _harm(check), _cap(statistic.neutral)
        yield Line(check.name, check, check.rule, group, check.margin, values[0], values[1], harm, statistic.span)
        if check.cap is not None:
            yield Line(f"{check.name}.cap", check, "cap", group, check.cap, values[2], values[3], cap_harm, statistic.span)


def _harm(check: CheckPolicy) -> Harm:
    neutral = metric(check.metric).neutral
    if check.rule == "cap":
        return _cap(neutral)
    return {
        "neutral": lambda q, b: (np.abs(q - neutral) - np.abs(b - neutral))[..., None],
        "drop": lambda q, b: (b - q)[..., None],
        "rise": lambda q, b: (q - b)[..., None],
        "retain": lambda q, b: (check.ratio * b - q)[..., None],
        "relative_rise": lambda q, b: (q / b - 1)[..., None],
    }[check.rule]


def _cap(neutral: float | None) -> Harm:
    return _value if neutral is None else lambda q, b: np.stack([q - neutral, neutral - q], -1)


def _value(q: Array, b: Array) -> Array:
    return q[..., None]
