"""Two models on the same items: the proof that they are the same, and the flips between them.

Flips are counted overall, per group, by certainty (strata), and over all benchmarks (`itemwise`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import binomtest

from fairgate.metrics.items import Items, Mask
from fairgate.metrics.statistic import Statistic, Terms
from fairgate.support.errors import FairgateError

# What must agree item by item. n_tokens differs where the tokenizers do.
_SAME = ("task_version", "prompt_hash", "cluster", "group", "subgroup", "gold", "covariate", "n_tokens", "n_chars")


class UnequalItems(FairgateError):
    """Two item tables do not hold the same items under the same prompts and task versions."""


def require_same_items(candidate: pa.Table, reference: pa.Table) -> None:
    """Raise UnequalItems unless both tables hold the same items.

    Equal are prompts, versions, groups and options.
    """
    if _sorted(candidate).equals(_sorted(reference)):
        return
    # Only a difference, which must be named, is worth going through 200,000 rows one by one.
    q, b = _keyed(candidate), _keyed(reference)
    for present, wanted, name in ((q, b, "reference"), (b, q, "candidate")):
        absent = sorted(set(present) - set(wanted))
        if absent:
            raise UnequalItems(
                f"{len(absent)} items are missing in the table of the {name}",
                where=f"{absent[0][0]}, item {absent[0][1]!r}",
                remedy="evaluate both models again with the same evaluate.tasks and seed",
            )
    for key, row in q.items():
        for column in _SAME:
            if row[column] != b[key][column]:
                raise UnequalItems(
                    f"{column} differs: candidate {row[column]!r}, reference {b[key][column]!r}",
                    where=f"{key[0]}, item {key[1]!r}",
                    remedy="evaluate both models again with the same tasks and tokenizer",
                )


def _sorted(table: pa.Table) -> pa.Table:
    key = ["benchmark", "item_id"]
    return table.select([*key, *_SAME]).sort_by([(name, "ascending") for name in key])


def _keyed(table: pa.Table) -> dict[tuple[str, str], dict[str, object]]:
    rows = table.select(["benchmark", "item_id", *_SAME]).to_pylist()
    return {(row["benchmark"], row["item_id"]): row for row in rows}


@dataclass(frozen=True)
class Flips:
    """How single answers changed from the reference to the candidate, overall or in a part.

    Shares are of the n items that both models answered, with two exceptions:
        new_bias = P(candidate stereotyped | reference not)
        reverse  = P(candidate not stereotyped | reference stereotyped)
    They are None where the condition never holds. p_value is that of the exact two-sided McNemar
    test on the discordant items. What counts bias is None for a benchmark without sides.
    """

    benchmark: str
    group: str | None
    subgroup: str | None
    n: int
    answer_flips: float
    bias_flips: float | None
    newly_biased: int | None
    newly_unbiased: int | None
    new_bias: float | None
    reverse: float | None
    p_value: float | None


def flips(candidate: Items, reference: Items, group: str | None = None, subgroup: str | None = None) -> Flips | None:
    """Flips overall, in a group, in a subgroup, or in both.

    None means that no item has an answer of both models (plain text).

    Raises:
        UnequalItems: the items are not the same.
        UnknownName: a group or subgroup that does not occur.
    """
    changed = _changed(candidate, reference)
    inside = candidate.inside(group, subgroup) & candidate.answered & reference.answered
    n = int(inside.sum())
    if changed is None or n == 0:
        return None
    answer_flips = float(changed[inside].mean())
    if candidate.biased is None or reference.biased is None:
        return Flips(candidate.benchmark, group, subgroup, n, answer_flips, None, None, None, None, None, None)
    q, b = candidate.biased[inside], reference.biased[inside]
    worse, better = int((q & ~b).sum()), int((b & ~q).sum())
    return Flips(
        benchmark=candidate.benchmark,
        group=group,
        subgroup=subgroup,
        n=n,
        answer_flips=answer_flips,
        bias_flips=(worse + better) / n,
        newly_biased=worse,
        newly_unbiased=better,
        new_bias=worse / int((~b).sum()) if (~b).any() else None,
        reverse=better / int(b.sum()) if b.any() else None,
        p_value=mcnemar(worse, better),
    )


def _changed(candidate: Items, reference: Items) -> Mask | None:
    if candidate.ids != reference.ids:
        raise UnequalItems("candidate and reference hold different items", where=candidate.benchmark)
    q, b = candidate.answer, reference.answer
    return None if q is None or b is None else q != b


STRATA = ("low", "medium", "high")


@dataclass(frozen=True)
class Stratum:
    """Flips among the items of which the reference was about equally certain.

    Shares are of n; None means that n is 0. Flips of low entropy are the alarming ones: the
    reference was sure, and uncertain answers flip anyway.
    """

    name: str
    n: int
    answer_flips: float | None
    bias_flips: float | None

    @property
    def alarming(self) -> bool:
        return self.name == STRATA[0] and bool(self.answer_flips)


def strata(candidate: Items, reference: Items, group: str | None = None, subgroup: str | None = None) -> tuple[Stratum, ...]:
    """Flips by the reference's entropy H / log k: low <= 1/3 < medium <= 2/3 < high.

    Empty where there are no options to be uncertain between.
    """
    changed, entropy = _changed(candidate, reference), reference.entropy
    if changed is None or entropy is None:
        return ()
    turned = None if candidate.biased is None or reference.biased is None else candidate.biased != reference.biased
    code = np.where(candidate.inside(group, subgroup), strata_of(entropy), -1)
    return tuple(
        Stratum(name, int((code == i).sum()), _share(changed, code == i), None if turned is None else _share(turned, code == i))
        for i, name in enumerate(STRATA)
    )


def strata_of(entropy: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Index into STRATA of each entropy."""
    return np.searchsorted([1 / 3, 2 / 3], entropy).astype(np.int64)


def _share(event: Mask, inside: Mask) -> float | None:
    return float(event[inside].mean()) if inside.any() else None


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given (Benjamini and Hochberg 1995).

    Calling those <= a discoveries keeps the expected share of false ones below a.
    """
    m = len(p_values)
    order = np.argsort(p_values)[::-1]
    steps = np.array(p_values)[order] * m / np.arange(m, 0, -1)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum.accumulate(np.minimum(steps, 1))
    return [float(p) for p in adjusted]


def mcnemar(worse: int, better: int) -> float:
    """Exact two-sided McNemar test: binomial with p = 1/2 on the discordant items.

    1 where there are none.
    """
    return float(binomtest(worse, worse + better).pvalue) if worse + better else 1.0


def _sides(candidate: Items, reference: Items) -> tuple[Mask, Mask, Mask]:
    """Which items are biased, and which both models answered; the others count as neither."""
    q, b = candidate.biased, reference.biased
    if q is None or b is None:
        raise FairgateError("flips of bias need a benchmark of sentence pairs", where=candidate.benchmark)
    both = candidate.answered & reference.answered
    return q & both, b & both, both


def _newly_biased(candidate: Items, reference: Items) -> Terms:
    """Newly stereotyped items / items that both answered."""
    q, b, both = _sides(candidate, reference)
    return q & ~b, both


def _net_biased(candidate: Items, reference: Items) -> Terms:
    """(Newly stereotyped - newly unbiased items) / items that both answered."""
    q, b, both = _sides(candidate, reference)
    return q.astype(float) - b, both


NEWLY_BIASED = Statistic(_newly_biased, "share", better="lower", span=1.0)
NET_NEW_BIAS = Statistic(_net_biased, "share", better="lower", span=1.0)


SMALLEST = 30  # items of a group below which a single flip makes it the worst
# Rates of abstaining: the right answer to an ambiguous question is "unknown". Their change is the
# abstention drop.
ABSTENTION = {"accuracy_amb": "“unknown” to ambiguous questions", "unbiased_rate": "“prefer not to answer”"}
# Metrics to read beside every bias score: a model that answers less, or speaks worse, may look
# fairer.
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
    """One model on one benchmark, item by item against its reference.

    It holds the whole, and every group and subgroup with answers. adjusted is the McNemar p-value
    after Benjamini-Hochberg over the benchmarks with sides.
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
        """The part of at least SMALLEST items with the highest new-bias rate.

        Without sides it is the flip rate. None means fewer than two such parts.
        """
        large = [part.flips for part in self.parts if part.flips.n >= SMALLEST]
        return max(large, key=harm, default=None) if len(large) > 1 else None


def itemwise(model: str, pairs: Iterable[tuple[Items, Items]]) -> list[Itemwise]:
    """One model's benchmarks, given as pairs of (model's, reference's) items.

    Benchmarks without answers are left out.
    """
    rows = [Itemwise(model, whole, strata(q, b), _parts(q, b)) for q, b in pairs if (whole := flips(q, b))]
    tested = [row.flips.p_value for row in rows if row.flips.p_value is not None]
    adjusted = iter(benjamini_hochberg(tested))
    return [replace(row, adjusted=None if row.flips.p_value is None else next(adjusted)) for row in rows]


def _parts(candidate: Items, reference: Items) -> tuple[Part, ...]:
    """Every group and every subgroup (of all groups) in which some item has answers of both."""
    names = [(group, None) for group in candidate.groups] + [(None, subgroup) for subgroup in candidate.subgroups()]
    changes = ((flips(candidate, reference, *name), strata(candidate, reference, *name)) for name in names)
    return tuple(Part(whole, by_certainty) for whole, by_certainty in changes if whole)


def harm(part: Flips) -> float:
    """What ranks parts: the new-bias rate (0 where no item could turn), else the flip rate."""
    return part.answer_flips if part.bias_flips is None else part.new_bias or 0.0
