"""What the averages hide: flips of each model against its full-precision parent, by certainty, in the worst group, over all sets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from stages.common.compare import Flips, Stratum, benjamini_hochberg, flips, strata
from stages.common.metrics import Items

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
class Itemwise:
    """One model on one benchmark, item by item against its parent.

    adjusted: the McNemar p-value after Benjamini-Hochberg over the benchmarks with sides.
    worst: the group or subgroup of at least SMALLEST items with the highest new-bias rate, or flip rate where there are no sides.
    """

    model: str
    flips: Flips
    strata: tuple[Stratum, ...]
    worst: Flips | None
    adjusted: float | None = None

    @property
    def benchmark(self) -> str:
        return self.flips.benchmark


def itemwise(model: str, pairs: Iterable[tuple[Items, Items]]) -> list[Itemwise]:
    """One model's benchmarks as (model's, parent's) items; those without answers are left out."""
    rows = [Itemwise(model, found, strata(q, b), _worst(q, b)) for q, b in pairs if (found := flips(q, b))]
    tested = [row.flips.p_value for row in rows if row.flips.p_value is not None]
    adjusted = iter(benjamini_hochberg(tested))
    return [replace(row, adjusted=None if row.flips.p_value is None else next(adjusted)) for row in rows]


def _worst(candidate: Items, reference: Items) -> Flips | None:
    parts = [(group, None) for group in candidate.groups] + [(None, subgroup) for subgroup in candidate.subgroups()]
    found = [part for cell in parts if (part := flips(candidate, reference, *cell)) and part.n >= SMALLEST]
    return max(found, key=harm, default=None) if len(found) > 1 else None


def harm(part: Flips) -> float:
    """What ranks groups: the new-bias rate (0 where no item could turn), else the flip rate."""
    return part.answer_flips if part.bias_flips is None else part.new_bias or 0.0
