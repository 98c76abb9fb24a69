"""The gate's policy: section `gate` of the parameter file. It is hashed into the verdict, so a verdict names its own rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fairgate.metrics.benchmarks import BENCHMARKS, METRICS
from fairgate.support.errors import FairgateError, UnknownName
from fairgate.support.params import PARAMS, Section, load

# Rule: what it means, which kinds of metric it fits, whether an absolute cap can stand beside it.
#   two-sided (bias with a neutral value), higher or lower is better; flips and health name their own metrics.
RULES: dict[str, tuple[tuple[str, ...], bool]] = {
    "neutral": (("neutral",), True),
    "drop": (("higher",), False),
    "rise": (("lower",), True),
    "retain": (("higher",), False),
    "relative_rise": (("lower",), True),
    "cap": (("neutral", "lower"), False),
    "new_bias": (("flips",), True),
    "health": (("health",), False),
}
_FLOORED = ("neutral", "drop", "rise", "cap", "new_bias")
HEALTH = "quantization.fallback_rtn"
NEW_BIAS = tuple(f"{name}.new_bias" for name, benchmark in BENCHMARKS.items() if benchmark.prefers)

Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CheckPolicy(Section):
    """One check. `margin` is the harm that is still tolerated, in the metric's unit (shares for retain, relative_rise, new_bias).

    minimum_n: independent units (target terms, passages, else items) below which a check stays open.
    cap: an absolute limit beside the comparison: distance from neutral, value, or share of newly stereotyped items.
    ratio: for `retain`, the share of the reference's score that must remain.
    above_noise: leave the check open where its margin lies below the noise floor, the flip rate of the stack itself (noise.json).
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    metric: str
    rule: str
    by: Literal["overall", "group"]
    margin: Finite
    minimum_n: Annotated[int, Field(ge=1)]
    reason: str
    cap: Finite | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    above_noise: bool = False

    @property
    def benchmark(self) -> str:
        return self.metric.rpartition(".")[0]

    @model_validator(mode="after")
    def _coherent(self) -> CheckPolicy:
        where = f"gate.checks, check {self.name!r}"

        def refuse(what: str, remedy: str) -> None:
            raise FairgateError(what, where=where, remedy=remedy)

        if self.rule not in RULES:
            raise UnknownName.of("rule", self.rule, RULES, where=where)
        kinds, capped = RULES[self.rule]
        if (kind := _kind(self.metric, where)) not in kinds:
            refuse(
                f"rule {self.rule!r} does not fit metric {self.metric!r} ({_WORDS[kind]})",
                f"rules that fit: {', '.join(rule for rule, (fits, _) in RULES.items() if kind in fits)}",
            )
        if not self.reason.strip():
            refuse("reason is empty", "say why this margin, for whoever has to defend the verdict")
        if self.cap is not None and not capped:
            refuse(f"rule {self.rule!r} takes no cap (got {self.cap})", "remove it, or write a check with rule 'cap'")
        if (self.ratio is not None) != (self.rule == "retain"):
            refuse(f"ratio is {self.ratio} under rule {self.rule!r}", "ratio belongs to rule 'retain', which needs one")
        if self.rule == "retain" and self.margin != 0:
            refuse(f"margin is {self.margin} under rule 'retain'", "write margin 0: what may be lost is said by ratio")
        if self.above_noise and (self.rule not in _FLOORED or (kind != "flips" and METRICS[self.metric].span is None)):
            refuse(
                f"above_noise under rule {self.rule!r} on {self.metric!r}: flips of the stack have no size in its margin",
                f"remove it; it fits rules {', '.join(_FLOORED)} on shares of items",
            )
        if self.rule == "health" and self.by == "group":
            refuse("modules have no groups", "write by: overall")
        return self


_WORDS = {
    "neutral": "its ideal is a neutral value",
    "higher": "higher is better",
    "lower": "lower is better",
    "flips": "it counts flips",
    "health": "it counts modules",
}


def _kind(metric: str, where: str) -> str:
    if metric == HEALTH:
        return "health"
    if metric in NEW_BIAS:
        return "flips"
    if metric not in METRICS:
        raise UnknownName.of("metric", metric, [*METRICS, *NEW_BIAS, HEALTH], where=where)
    return METRICS[metric].better or "neutral"


class Policy(Section):
    """Section `gate`. Bounds are one-sided at `confidence`; `draws` and `seed` define the bootstrap."""

    candidate: str
    reference: str
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    draws: Annotated[int, Field(ge=10_000)]
    seed: Annotated[int, Field(ge=0)]
    checks: list[CheckPolicy]

    @model_validator(mode="after")
    def _decidable(self) -> Policy:
        if not self.checks:
            raise FairgateError("no checks: nothing would be tested, and everything approved", where="gate.checks", remedy="write a check")
        names = [check.name for check in self.checks]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise FairgateError(f"check {double[0]!r} occurs more than once", where="gate.checks", remedy="give each check its own name")
        if self.candidate == self.reference:
            raise FairgateError(f"candidate and reference are both {self.candidate!r}", where="gate", remedy="compare it with its base")
        return self


def read_policy(path: Path | str = PARAMS) -> Policy:
    """The policy of a parameter file.

    Raises:
        FairgateError: an unknown key, metric or rule (with the nearest right one), a check without reason, a duplicate name,
            an empty list, a rule that does not fit its metric.
    """
    return load(Policy, "gate", path)
