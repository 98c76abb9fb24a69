"""Two models on the same items: the proof that they are the same, and the flips between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest

from stages.common.errors import FairgateError, UnknownName
from stages.common.metrics import Items
from stages.common.statistic import Statistic, Terms

# What must agree item by item; n_tokens differs when the tokenizers do.
_SAME = ("task_version", "prompt_hash", "cluster", "group", "subgroup", "gold", "n_tokens", "n_chars")


class UnequalItems(FairgateError):
    """Two item tables do not hold the same items under the same prompts and task versions."""


def require_same_items(candidate: pa.Table, reference: pa.Table) -> None:
    """Raise UnequalItems unless both tables hold the same items with equal prompts, versions, groups and options."""
    q, b = _keyed(candidate), _keyed(reference)
    for one, other, name in ((q, b, "reference"), (b, q, "candidate")):
        absent = sorted(set(one) - set(other))
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


def _keyed(table: pa.Table) -> dict[tuple[str, str], dict[str, object]]:
    rows = table.select(["benchmark", "item_id", *_SAME]).to_pylist()
    return {(row["benchmark"], row["item_id"]): row for row in rows}


@dataclass(frozen=True)
class Flips:
    """How single answers changed from the reference (the parent) to the candidate.

    Shares of n items, except new_bias = P(stereotyped now | parent unbiased) and reverse = P(unbiased now | parent stereotyped),
    None where the condition never holds. p_value: exact two-sided McNemar test on the discordant items. Measures of bias are
    None for a benchmark without sides.
    """

    benchmark: str
    group: str | None
    n: int
    answer_flips: float
    bias_flips: float | None
    newly_biased: int | None
    newly_unbiased: int | None
    new_bias: float | None
    reverse: float | None
    p_value: float | None


def flips(candidate: Items, reference: Items, group: str | None = None) -> Flips | None:
    """Flips overall or in one group; None for plain text, which has no answer."""
    if candidate.ids != reference.ids:
        raise UnequalItems("candidate and reference hold different items", where=candidate.benchmark)
    if group is not None and group not in candidate.groups:
        raise UnknownName.of("group", group, candidate.groups, where=candidate.benchmark)
    q_answer, b_answer = candidate.answer, reference.answer
    if q_answer is None or b_answer is None:
        return None
    inside = np.ones(len(candidate.ids), dtype=bool) if group is None else candidate.group == group
    n = int(inside.sum())
    answer_flips = float((q_answer != b_answer)[inside].mean())
    if candidate.biased is None or reference.biased is None:
        return Flips(candidate.benchmark, group, n, answer_flips, None, None, None, None, None, None)
    q, b = candidate.biased[inside], reference.biased[inside]
    worse, better = int((q & ~b).sum()), int((b & ~q).sum())
    return Flips(
        benchmark=candidate.benchmark,
        group=group,
        n=n,
        answer_flips=answer_flips,
        bias_flips=(worse + better) / n,
        newly_biased=worse,
        newly_unbiased=better,
        new_bias=worse / int((~b).sum()) if (~b).any() else None,
        reverse=better / int(b.sum()) if b.any() else None,
        p_value=mcnemar(worse, better),
    )


def mcnemar(worse: int, better: int) -> float:
    """Exact two-sided McNemar test: binomial with p = 1/2 on the discordant items; 1 where there are none."""
    return float(binomtest(worse, worse + better).pvalue) if worse + better else 1.0


def _sides(candidate: Items, reference: Items) -> tuple[np.ndarray, np.ndarray]:
    q, b = candidate.biased, reference.biased
    if q is None or b is None:
        raise FairgateError("flips of bias need a benchmark of sentence pairs", where=candidate.benchmark)
    return q, b


def _newly_biased(candidate: Items, reference: Items) -> Terms:
    q, b = _sides(candidate, reference)
    return q & ~b, np.ones(len(q))


def _net_biased(candidate: Items, reference: Items) -> Terms:
    q, b = _sides(candidate, reference)
    return q.astype(float) - b, np.ones(len(q))


# Shares of all items: newly stereotyped, and newly stereotyped minus newly unbiased.
NEWLY_BIASED = Statistic(_newly_biased, "share", better="lower", span=1.0)
NET_NEW_BIAS = Statistic(_net_biased, "share", better="lower", span=1.0)
