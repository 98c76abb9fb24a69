"""What the averages hide: flips of each model against its full-precision parent, by certainty, in the worst group, over all sets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fairgate.metrics.estimates import Items
from fairgate.metrics.flips import Flips, Stratum, benjamini_hochberg, flips, strata

SMALLEST = 30  # items of a group below which a single flip makes it the worst
# Metrics that are the rate of abstaining: the right answer to an ambiguous question is "unknown". Their change is the abstention drop.
ABSTENTION = {"accuracy_amb": "“unknown” to ambiguous questions", "unbiased_rate": "“prefer not to answer”"}
# Metrics to read beside every bias score: a model that answers less, or speaks worse, may look fairer.
GUARDS = {
    "mass": "probability of both answers together",
    "no_answer": "no answer that can be read",
    "nonempty": "texts that are not empty",
    "useful": "useful answers",
    "mean_words": "length",
    "loglik_stereotype": "log-likelihood, stereotype",
    "loglik_anti": "log-likelihood, anti-stereotype",
    "loglik_male": "log-likelihood, male",
    "loglik_female": "log-likelihood, female",
    "loglik_probe": "log-likelihood",
    "lms": "sense from nonsense (LMS)",
}


@dataclass(frozen=True)
class Part:
    """Flips in one group or subgroup (of all groups), and by certainty."""

    flips: Flips
    strata: tuple[Stratum, ...]

    @property
    def name(self) -> str:
        return self.flips.group or self.flips.subgroup or ""


@dataclass(frozen=True)
class Itemwise:
    """One model on one benchmark, item by item against its parent: the whole, and every group and subgroup with answers.

    adjusted: the McNemar p-value after Benjamini-Hochberg over the benchmarks with sides.
    """

    model: str
    flips: Flips
    strata: tuple[Stratum, ...]
    parts: tuple[Part, ...]
    adjusted: float | None = None

    @property
    def benchmark(self) -> str:
        return self.flips.benchmark

    @property
    def worst(self) -> Flips | None:
        """Of two or more parts of at least SMALLEST items, the one with the highest new-bias rate, or flip rate without sides."""
        large = [part.flips for part in self.parts if part.flips.n >= SMALLEST]
        return max(large, key=harm, default=None) if len(large) > 1 else None


def itemwise(model: str, pairs: Iterable[tuple[Items, Items]]) -> list[Itemwise]:
    """One model's benchmarks as (model's, parent's) items; those without answers are left out."""
    rows = [Itemwise(model, found, strata(q, b), _parts(q, b)) for q, b in pairs if (found := flips(q, b))]
    tested = [row.flips.p_value for row in rows if row.flips.p_value is not None]
    adjusted = iter(benjamini_hochberg(tested))
    return [replace(row, adjusted=None if row.flips.p_value is None else next(adjusted)) for row in rows]


def _parts(candidate: Items, reference: Items) -> tuple[Part, ...]:
    cells = [(group, None) for group in candidate.groups] + [(None, subgroup) for subgroup in candidate.subgroups()]
    return tuple(Part(found, strata(candidate, reference, *cell)) for cell in cells if (found := flips(candidate, reference, *cell)))


def harm(part: Flips) -> float:
    """What ranks groups: the new-bias rate (0 where no item could turn), else the flip rate."""
    return part.answer_flips if part.bias_flips is None else part.new_bias or 0.0
