"""The gate's policy: section `gate` of the parameter file, hashed into the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fairgate.benchmarks import BENCHMARKS, METRICS
from fairgate.decision.rules import KINDS, RULES, Rule
from fairgate.support.errors import FairgateError, UnknownName
from fairgate.support.params import PARAMS, Section, Seed, load

HEALTH = "quantization.fallback_rtn"
NEW_BIAS = tuple(f"{name}.new_bias" for name, benchmark in BENCHMARKS.items() if benchmark.prefers)

Harm = Annotated[float, Field(ge=0)]


class CheckPolicy(Section):
    """One check. It gives one line of the verdict, or one for each group; a cap doubles them."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="what the verdict calls it; unique in the policy")
    metric: str = Field(description="`<benchmark>.<metric>`, or `quantization.fallback_rtn`")
    rule: str = Field(description="how harm is measured; docs/methods.md lists the rules")
    by: Literal["overall", "group"] = Field(description="one line for all items, or one for each group of the benchmark")
    margin: Harm = Field(
        description="harm that is still tolerated, in the metric's unit; a share for `retain`, `relative_rise` and `new_bias`"
    )
    minimum_n: int = Field(
        ge=1,
        description="independent units (target terms, passages, else items) below which a line stays open",
    )
    reason: str = Field(description="why this margin, for whoever has to defend the verdict")
    cap: Harm | None = Field(
        None,
        description="an absolute limit beside the comparison: distance from neutral, value, or share of newly stereotyped items",
    )
    ratio: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="the share of the reference's score that must remain; for `retain`"
    )
    above_noise: bool = Field(
        False,
        description="leave a line open if its margin lies below the noise floor, the flip rate of the software stack itself (noise.json)",
    )

    @property
    def benchmark(self) -> str:
        return self.metric.rpartition(".")[0]

    @property
    def kind(self) -> str:
        """The kind of its metric, a key of `KINDS`."""
        return _kind(self.metric, self._where)

    @property
    def _where(self) -> str:
        return f"gate.checks, check {self.name!r}"

    @model_validator(mode="after")
    def _coherent(self) -> CheckPolicy:
        def refuse(what: str, remedy: str) -> None:
            raise FairgateError(what, where=self._where, remedy=remedy)

        if self.rule not in RULES:
            raise UnknownName.of("rule", self.rule, RULES, where=self._where)
        rule, kind = RULES[self.rule], self.kind
        if kind not in rule.kinds:
            refuse(
                f"rule {rule.name!r} does not fit metric {self.metric!r} ({KINDS[kind]})",
                f"rules that fit: {_names(r for r in RULES.values() if kind in r.kinds)}",
            )
        if not self.reason.strip():
            refuse("reason is empty", "say why this margin, for whoever has to defend the verdict")
        if self.cap is not None and not rule.takes_cap:
            refuse(
                f"rule {rule.name!r} takes no cap (got {self.cap})",
                "remove it, or write a check with rule 'cap'",
            )
        if (self.ratio is not None) != rule.takes_ratio:
            takers = _names(r for r in RULES.values() if r.takes_ratio)
            refuse(
                f"ratio is {self.ratio} under rule {rule.name!r}",
                f"ratio belongs to rule {takers!r}, which needs one",
            )
        if rule.takes_ratio and self.margin != 0:
            refuse(
                f"margin is {self.margin} under rule {rule.name!r}",
                "write margin 0: what may be lost is said by ratio",
            )
        counts_items = kind == "flips" or (kind != "health" and METRICS[self.metric].span is not None)
        if self.above_noise and not (rule.has_floor and counts_items):
            floored = _names(r for r in RULES.values() if r.has_floor)
            refuse(
                f"above_noise under rule {rule.name!r} on {self.metric!r}: flips of the stack have no size in its margin",
                f"remove it; it fits rules {floored} on shares of items",
            )
        if kind == "health" and self.by == "group":
            refuse("modules have no groups", "write by: overall")
        return self


def _names(rules: Iterable[Rule]) -> str:
    return ", ".join(rule.name for rule in rules)


def _kind(metric: str, where: str) -> str:
    if metric == HEALTH:
        return "health"
    if metric in NEW_BIAS:
        return "flips"
    if metric not in METRICS:
        raise UnknownName.of("metric", metric, [*METRICS, *NEW_BIAS, HEALTH], where=where)
    return METRICS[metric].better or "neutral"


class Policy(Section):
    """Section `gate`: who is compared with whom, how bounds are computed, and the checks."""

    candidate: str = Field(description="the recipe to judge")
    reference: str = Field(description="the recipe that it is compared with, usually `base`")
    confidence: float = Field(gt=0.5, lt=1, description="confidence of each one-sided bound")
    draws: int = Field(ge=10_000, le=10_000_000, description="resamples of the bootstrap")
    seed: Seed = Field(description="seed of the bootstrap")
    checks: list[CheckPolicy] = Field(description="what is checked; every line of it must pass")

    @model_validator(mode="after")
    def _decidable(self) -> Policy:
        if not self.checks:
            raise FairgateError(
                "no checks: nothing would be tested, and everything approved",
                where="gate.checks",
                remedy="write a check",
            )
        names = [check.name for check in self.checks]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise FairgateError(
                f"check {double[0]!r} occurs more than once",
                where="gate.checks",
                remedy="give each check its own name",
            )
        if self.candidate == self.reference:
            raise FairgateError(
                f"candidate and reference are both {self.candidate!r}",
                where="gate",
                remedy="compare it with its base",
            )
        return self


def read_policy(path: Path | str = PARAMS) -> Policy:
    """The policy of a parameter file.

    Raises:
        FairgateError: an unknown key, metric or rule (with the nearest right one), a check without
            a reason, a duplicate name, an empty list, or a rule that does not fit its metric.
    """
    return load(Policy, "gate", path)
