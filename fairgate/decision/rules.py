"""What each rule measures: harm as a function of the candidate's and the reference's value, positive where the candidate is worse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fairgate.decision.policy import CheckPolicy
from fairgate.metrics.benchmarks import metric
from fairgate.metrics.estimates import Items
from fairgate.metrics.flips import NET_NEW_BIAS, NEWLY_BIASED
from fairgate.metrics.statistic import Array, Components
from fairgate.support.errors import FairgateError

# (candidate [...], reference [...]) -> terms [..., sides, ways]; the harm is the largest over sides of the smallest over ways, and so is
# its upper bound. A neutral value has two sides: both must hold (two one-sided tests), and one is enough to fail. A way is a term that the
# harm cannot exceed:
#     |q - v| - |b - v| = max over s of min over t of  s (q - v) - t (b - v),     s, t = +1, -1
# The terms are linear, unlike |b - v|: resampled around a neutral reference it only grows, and took the upper bound of the harm down
# with it (false approvals of 16 to 20 % where 5 % were meant). Where the reference is neutral exactly, two bounds of 5 % stand
# side by side, and the chance is between one and two times that.
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
        "neutral": lambda q, b: _sides(q - neutral)[..., :, None] - _sides(b - neutral)[..., None, :],
        "drop": lambda q, b: _alone(b - q),
        "rise": lambda q, b: _alone(q - b),
        "retain": lambda q, b: _alone(check.ratio * b - q),
        "relative_rise": lambda q, b: _alone(q / b - 1),
    }[check.rule]


def _cap(neutral: float | None) -> Harm:
    return _value if neutral is None else lambda q, b: _sides(q - neutral)[..., None]


def _value(q: Array, b: Array) -> Array:
    return _alone(q)


def _sides(distance: Array) -> Array:
    return np.stack([distance, -distance], -1)


def _alone(term: Array) -> Array:
    """A harm of one side and one way."""
    return term[..., None, None]
