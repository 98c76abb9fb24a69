"""From a check of the policy to hypotheses: this harm stays within that margin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fairgate.benchmarks import metric
from fairgate.decision.policy import CheckPolicy
from fairgate.decision.rules import RULES, Rule, Standard
from fairgate.metrics.flips import NET_NEW_BIAS, NEWLY_BIASED
from fairgate.metrics.items import Items
from fairgate.metrics.statistic import Array, Components
from fairgate.support.errors import FairgateError


@dataclass(frozen=True)
class Hypothesis:
    """What one line of the verdict tests: a check overall or in one group, or the cap beside it."""

    name: str
    check: CheckPolicy
    rule: Rule
    group: str | None
    margin: float
    candidate: Components
    reference: Components
    standard: Standard
    span: float | None

    @property
    def family(self) -> tuple[str, str]:
        """The hypotheses of one check over its groups, the family of 'some group got worse'."""
        return self.check.name, self.rule.name

    @property
    def n(self) -> int:
        """Independent units, what the bootstrap resamples."""
        return self.candidate.clusters

    def terms(self, q: Array, b: Array) -> Array:
        """Terms of the harm [..., sides, ways] for values [...] of candidate and reference."""
        assert self.rule.harm is not None
        return self.rule.harm(q, b, self.standard)

    def point(self) -> tuple[float, float, float]:
        """The candidate's value, the reference's value, and the harm."""
        q, b = self.candidate.value, self.reference.value
        return q, b, float(harm_of(self.terms(np.array(q), np.array(b))))


def harm_of(terms: Array) -> Array:
    """The harm [...] of terms [..., sides, ways]."""
    return np.asarray(terms.min(-1).max(-1))


def hypotheses_of(check: CheckPolicy, candidate: Items, reference: Items) -> Iterator[Hypothesis]:
    """The hypotheses of one check on the items of its benchmark.

    Raises:
        FairgateError: `by: group` on a benchmark whose items have no groups.
    """
    groups: list[str | None] = [None]
    if check.by == "group":
        groups = [*candidate.groups]
        if not groups:
            what = f"items of {candidate.benchmark!r} have no groups"
            raise FairgateError(what, where=f"check {check.name!r}", remedy="write by: overall")
    # Flips are a property of both models' answers together, any other metric one of each model's.
    flips = check.kind == "flips"
    compared = NET_NEW_BIAS if flips else metric(check.metric)
    capped = NEWLY_BIASED if flips else compared
    tests = [(check.name, RULES[check.rule], check.margin, compared)]
    if check.cap is not None:
        tests.append((f"{check.name}.cap", RULES["cap"], check.cap, capped))
    for group in groups:
        for name, rule, margin, statistic in tests:
            if flips:
                q = b = statistic.components(candidate, reference, group=group)
            else:
                q, b = (statistic.components(items, group=group) for items in (candidate, reference))
            standard = Standard(neutral=statistic.neutral, ratio=check.ratio)
            yield Hypothesis(name, check, rule, group, margin, q, b, standard, statistic.span)
