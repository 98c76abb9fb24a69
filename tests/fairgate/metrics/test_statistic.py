"""Hierarchical means against numbers worked out by hand.

An empty subgroup has no value, a missed one spoils its draw.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fairgate.benchmarks import items_of
from fairgate.metrics.bootstrap import bootstrap
from fairgate.metrics.items import Items
from fairgate.metrics.statistic import Statistic, Terms
from fairgate.support.errors import UnknownName
from tests.items import ANTI, STEREOTYPED, TIED, row, table

# Yes, no, and - for no answer.
# Shares of yes: male 1/2, female 1/1; asian 1/4, black none answered, white 0/2.
ANSWERS = {
    ("gender", "male"): "yn-",
    ("gender", "female"): "y",
    ("race", "asian"): "ynnn",
    ("race", "black"): "--",
    ("race", "white"): "nn",
}
LOGLIK = {"y": STEREOTYPED, "n": ANTI, "-": TIED}


def _items(answers: dict[tuple[str, str], str] = ANSWERS, **columns: object) -> Items:
    rows = [
        row("crows_pairs", f"{group} {subgroup} {i}", LOGLIK[answer], group=group, subgroup=subgroup, **columns)
        for (group, subgroup), given in answers.items()
        for i, answer in enumerate(given)
    ]
    return items_of(table(*rows), "crows_pairs")


def _yes(items: Items) -> Terms:
    return items.loglik[:, 0] > items.loglik[:, 1], items.loglik[:, 0] != items.loglik[:, 1]


YES = Statistic(_yes, "share", better="lower", span=1.0)


@pytest.mark.parametrize(
    ("mean_over", "overall", "gender", "race"),
    [
        ("items", 3 / 9, 2 / 3, 1 / 6),
        ("groups", (2 / 3 + 1 / 6) / 2, 2 / 3, 1 / 6),
        ("subgroups", (1 / 2 + 1 + 1 / 4 + 0) / 4, 3 / 4, 1 / 8),
        ("hierarchy", (3 / 4 + 1 / 8) / 2, 3 / 4, 1 / 8),
    ],
)
def test_each_level_has_equal_weight_and_the_empty_subgroup_none(mean_over: str, overall: float, gender: float, race: float) -> None:
    statistic = replace(YES, mean_over=mean_over)
    found = [statistic.components(_items(), group=group) for group in (None, "gender", "race")]
    assert [part.value for part in found] == pytest.approx([overall, gender, race])
    assert [(part.items, part.clusters) for part in found] == [(9, 9), (3, 3), (6, 6)]  # those answered


def test_a_number_for_an_empty_cell_keeps_it_in_the_mean() -> None:
    statistic = replace(YES, mean_over="hierarchy", empty=0.5)
    assert statistic.components(_items()).value == pytest.approx((3 / 4 + (1 / 4 + 1 / 2 + 0) / 3) / 2)


def test_nobody_answered_is_no_value() -> None:
    for mean_over in ("groups", "subgroups", "hierarchy"):
        assert np.isnan(replace(YES, mean_over=mean_over).components(_items({("race", "black"): "--"})).value)


def test_gaps_are_taken_within_a_group_before_the_mean() -> None:
    statistic = replace(YES, mean_over="hierarchy", across=lambda shares: shares.max(-1) - shares.min(-1))
    assert statistic.components(_items()).value == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert statistic.components(_items(), group="race").value == pytest.approx(1 / 4)


def test_several_ratios_are_combined_within_each_group() -> None:
    def both(items: Items) -> Terms:
        yes, answered = map(np.asarray, _yes(items))
        return np.stack([yes, ~yes & answered], 1), np.stack([answered, answered], 1)

    statistic = Statistic(both, "share", mean_over="groups", combine=lambda shares: shares[..., 0] * shares[..., 1])
    assert statistic.components(_items()).value == pytest.approx((2 / 3 * 1 / 3 + 1 / 6 * 5 / 6) / 2)


def test_one_subgroup_alone() -> None:
    items = _items()
    assert YES.components(items, subgroup="asian").value == 1 / 4
    assert YES.components(items, group="race", subgroup="white").value == 0
    with pytest.raises(UnknownName, match=r"unknown subgroup 'male'\nRemedy.*known: asian, black, white"):
        YES.components(items, group="race", subgroup="male")
    assert items.subgroups("race") == ["asian", "black", "white"]


def test_a_draw_that_misses_a_subgroup_has_no_value() -> None:
    part = replace(YES, mean_over="hierarchy").components(_items())
    weights = np.ones(len(part.numerators))
    female = _items().ids.index("gender female 0")
    weights[female] = 0
    assert np.isnan(part.of_sums(weights @ part.numerators, weights @ part.denominators))


def test_the_standard_error_is_that_of_a_stratified_mean() -> None:
    answers = {("a", "x"): "ynyyn", ("a", "y"): "nnyn", ("b", "z"): "yynynnny"}
    part = replace(YES, mean_over="hierarchy").components(_items(answers))
    shares = {key: given.count("y") / len(given) for key, given in answers.items()}
    weight = {("a", "x"): 1 / 4, ("a", "y"): 1 / 4, ("b", "z"): 1 / 2}
    squares = sum((weight[key] * ((one == "y") - shares[key]) / len(given)) ** 2 for key, given in answers.items() for one in given)
    assert part.stderr == pytest.approx(np.sqrt(17 / 16 * squares))


def test_clusters_that_span_groups_are_drawn_whole() -> None:
    """One template asked about every subgroup.

    Resampling it moves all of them together, so their gap stays put.
    """
    rows = [
        row("crows_pairs", f"{q} {subgroup}", STEREOTYPED if q % 2 else ANTI, cluster=str(q), group=group, subgroup=subgroup)
        for q in range(12)
        for group, subgroup in (("gender", "male"), ("gender", "female"), ("race", "white"))
    ]
    items = items_of(table(*rows), "crows_pairs")
    gap = replace(YES, mean_over="hierarchy", across=lambda shares: shares.max(-1) - shares.min(-1))
    level, difference = bootstrap([YES.components(items), gap.components(items)], items.strata, draws=200, seed=0)
    assert level.std() > 0.1 and (difference == 0).all()
