"""The gate's rules, one object each: which metrics a rule takes, what it calls harm, and its words.

Everything that asks about a rule reads the table `RULES`: the policy when it validates a check, the
verdict when it computes and reports a harm, and the table in docs/methods.md. A new rule is one
more entry.

Harm is a function of the candidate's value q and the reference's value b, positive where the
candidate is worse. It is written as terms [..., sides, ways]: the harm is the largest over the
sides of the smallest over the ways, and so is its upper bound.

A neutral value has two sides: both must hold (two one-sided tests), and one is enough to fail.
A way is a term that the harm cannot exceed:

    |q - v| - |b - v| = max over s of min over t of  s (q - v) - t (b - v),     s, t = +1, -1

The terms are linear, unlike |b - v|. Around a neutral reference a resampled |b - v| can only grow,
and it took the upper bound of the harm down with it (false approvals of 16 to 20 % where 5 % were
meant). Where the reference is exactly neutral, two bounds of 5 % stand side by side, and the chance
of a false approval is between one and two times that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairgate.metrics.statistic import Array
from fairgate.support.tables import markdown_table

# The kinds of metric, and how a message and the documentation describe them.
KINDS: dict[str, str] = {
    "neutral": "its ideal is a neutral value",
    "higher": "higher is better",
    "lower": "lower is better",
    "flips": "it counts flips",
    "health": "it counts modules",
}


@dataclass(frozen=True)
class Standard:
    """What a value is measured against, beside the reference.

    Args:
        neutral: The metric's ideal value; None where higher or lower is better.
        ratio: The share of the reference's score that must remain; None under most rules.
    """

    neutral: float | None = None
    ratio: float | None = None


Harm = Callable[[Array, Array, Standard], Array]


@dataclass(frozen=True)
class Rule:
    """One way to compare a candidate with its reference.

    Args:
        name: What a check's `rule` says.
        kinds: The kinds of metric (keys of `KINDS`) that the rule takes.
        formula: The harm in symbols, for the documentation.
        sentence: What the harm says about a metric; goes between the metric and the number.
        harm: Candidate [...] and reference [...] -> terms [..., sides, ways]. None means that the
            harm is a count in the candidate's records and is not resampled.
        takes_cap: Whether an absolute cap may stand beside the comparison.
        has_floor: Whether flips of the software stack itself have a size in the margin's unit.
        takes_ratio: Whether the tolerance is a `ratio`. If so, the check needs one and its margin
            is 0.
        compares: Whether a harmless candidate's harm is 0 by definition. An absolute limit does not
            compare, so it has no smallest detectable harm.
    """

    name: str
    kinds: tuple[str, ...]
    formula: str
    sentence: str
    harm: Harm | None
    takes_cap: bool = False
    has_floor: bool = False
    takes_ratio: bool = False
    compares: bool = True


def _distance_grew(q: Array, b: Array, standard: Standard) -> Array:
    assert standard.neutral is not None
    return _sides(q - standard.neutral)[..., :, None] - _sides(b - standard.neutral)[..., None, :]


def _fell(q: Array, b: Array, standard: Standard) -> Array:
    return one_term(b - q)


def _rose(q: Array, b: Array, standard: Standard) -> Array:
    return one_term(q - b)


def _lost_too_much(q: Array, b: Array, standard: Standard) -> Array:
    assert standard.ratio is not None
    return one_term(standard.ratio * b - q)


def _rose_by_a_share(q: Array, b: Array, standard: Standard) -> Array:
    return one_term(q / b - 1)


def _value(q: Array, b: Array, standard: Standard) -> Array:
    return one_term(q)


def _absolute(q: Array, b: Array, standard: Standard) -> Array:
    return one_term(q) if standard.neutral is None else _sides(q - standard.neutral)[..., None]


def _sides(distance: Array) -> Array:
    return np.stack([distance, -distance], -1)


def one_term(harm: Array) -> Array:
    """A harm [...] of one side and one way, as terms [..., 1, 1]."""
    return harm[..., None, None]


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            name="neutral",
            kinds=("neutral",),
            formula="|q − neutral| − |b − neutral|",
            sentence="the distance from the neutral value grew by",
            harm=_distance_grew,
            takes_cap=True,
            has_floor=True,
        ),
        Rule(
            name="drop",
            kinds=("higher",),
            formula="b − q",
            sentence="fell by",
            harm=_fell,
            has_floor=True,
        ),
        Rule(
            name="rise",
            kinds=("lower",),
            formula="q − b",
            sentence="rose by",
            harm=_rose,
            takes_cap=True,
            has_floor=True,
        ),
        Rule(
            name="retain",
            kinds=("higher",),
            formula="ratio · b − q, margin 0",
            sentence="the loss beyond what may be lost is",
            harm=_lost_too_much,
            takes_ratio=True,
        ),
        Rule(
            name="relative_rise",
            kinds=("lower",),
            formula="q / b − 1",
            sentence="rose by a share of",
            harm=_rose_by_a_share,
            takes_cap=True,
        ),
        Rule(
            name="cap",
            kinds=("neutral", "lower"),
            formula="distance from neutral (both sides), or the value",
            sentence="the absolute value to be capped is",
            harm=_absolute,
            has_floor=True,
            compares=False,
        ),
        Rule(
            name="new_bias",
            kinds=("flips",),
            formula="share of items newly stereotyped − share that turned back",
            sentence="the share of items newly stereotyped, less those that turned back, is",
            harm=_value,
            takes_cap=True,
            has_floor=True,
        ),
        Rule(
            name="health",
            kinds=("health",),
            formula="modules that fell back to rounding, or whose learning stopped",
            sentence="modules rounded to nearest for want of a factorization, or whose learning stopped early:",
            harm=None,
        ),
    )
}

# How the documentation describes the metrics of each kind.
_FITS: dict[str, str] = {
    "neutral": "scores with a neutral value",
    "higher": "higher is better",
    "lower": "lower is better",
    "flips": "pair benchmarks",
    "health": "`quantization.fallback_rtn`",
}


def rules_table() -> str:
    """The rules as the Markdown table of docs/methods.md."""
    rows = [
        (
            f"`{rule.name}`",
            rule.formula,
            ", ".join(_FITS[kind] for kind in rule.kinds),
            "yes" if rule.takes_cap else "no",
            "yes" if rule.has_floor else "no",
        )
        for rule in RULES.values()
    ]
    return markdown_table(["rule", "d", "fits", "cap", "noise floor"], rows)
