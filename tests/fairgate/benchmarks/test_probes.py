"""Measures of pairs by perplexity, of answer mass, of probes, of words, subjects and pages, against
numbers worked out by hand.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from fairgate.benchmarks import METRICS, benchmark_of, items_of
from fairgate.metrics.estimates import metrics_of
from fairgate.metrics.flips import flips, strata
from fairgate.metrics.statistic import Array
from fairgate.support.errors import BadRecord
from tests.items import row, table


def pair(item: int, stereotype: float, anti: float, subgroup: str, **columns: Any) -> dict[str, Any]:
    """A pair of given perplexities, two tokens a side."""
    loglik = [-2 * math.log(stereotype), -2 * math.log(anti)]
    return row("redditbias", item, loglik, n_tokens=[2, 2], group=subgroup.split("-")[0], subgroup=subgroup, **columns)


def test_pairs_by_perplexity() -> None:
    rows = [
        pair(0, 10, 12, "gender-a"),  # stereotyped, gap -2
        pair(1, 10, 16, "gender-a"),  # stereotyped, gap -6
        pair(2, 14, 10, "gender-a"),  # gap 4
        pair(3, 10, 10, "gender-a"),  # tie: no side, gap 0
        pair(4, 9, 9, "race-b"),  # nothing but a tie
        pair(5, 12, 10, "religion-c"),
        pair(8, 13, 10, "religion-c"),
        pair(6, 12, 10, "religion-d"),
        pair(7, 10, 12, "religion-d", cluster="00006"),  # the duplicate of a cluster counts as a pair
    ]
    metrics = metrics_of(table(*rows), benchmark_of)
    assert metrics["redditbias.ss.gender"] == pytest.approx(100 * 2 / 3)
    assert metrics["redditbias.ss.race"] == 50
    assert metrics["redditbias.ss.religion"] == pytest.approx((0 + 50) / 2)
    assert metrics["redditbias.ss"] == pytest.approx((200 / 3 + 50 + 0 + 50) / 4)
    gaps = np.array([-2, -6, 4, 0])
    others = np.array([2, 3])
    d = {"gender": -gaps.mean() / gaps.std(ddof=1), "race": 0.0, "religion": (-others.mean() / others.std(ddof=1) + 0) / 2}
    for group, value in d.items():
        assert metrics[f"redditbias.cohens_d.{group}"] == pytest.approx(value)
    assert d["gender"] > 0
    assert metrics["redditbias.cohens_d"] == pytest.approx((d["gender"] + 2 * d["religion"]) / 4)
    means = [np.mean(np.log(sides)) for sides in ([10, 10, 14, 10], [9], [12, 13], [12, 10])]
    assert metrics["redditbias.loglik_stereotype"] == pytest.approx(-np.mean(means))
    assert metrics["redditbias.loglik_anti.race"] == pytest.approx(-np.log(9))


GENDERS, RACES = ("female", "male", "non-binary"), ("Asian", "Black", "Hispanic", "Native American", "white")


def answers(question: int, mass: Array) -> list[dict[str, Any]]:
    """One question asked of every gender and race once; mass [3, 5, 2]: of yes and of no.

    Yes is spelt in two tokens, no in one.
    """
    return [
        row(
            "discrimeval",
            f"{question}-{gender}-{race}",
            [math.log(mass[g, r, 0] / 4), math.log(mass[g, r, 0] * 3 / 4), math.log(mass[g, r, 1])],
            n_chars=[3, 3, 2],
            cluster=str(question),
            subgroup=f"{gender}/{race}",
        )
        for (g, gender), (r, race) in product(enumerate(GENDERS), enumerate(RACES))
    ]


def test_masses_of_an_answer() -> None:
    first, second = np.full((3, 5, 2), 0.2), np.full((3, 5, 2), 0.1)
    first[0, :, 0] = 0.3  # question 0 favours women, by 0.1
    second[:, 3, 0] = 0.5  # question 1 favours one race, by 0.4, and men and non-binary people alike, by 0.02
    second[0, :, 0] -= 0.02
    metrics = metrics_of(table(*answers(0, first), *answers(1, second)), benchmark_of)
    assert metrics["discrimeval.delta_gender"] == pytest.approx((0.1 + 0.02) / 2)
    assert metrics["discrimeval.delta_race"] == pytest.approx((0 + 0.4) / 2)
    assert metrics["discrimeval.delta"] == pytest.approx((0.06 + 0.2) / 2)
    # How often each is favoured, a tie being shared.
    genders = np.array([1, 1 / 2, 1 / 2]) / 2
    races = np.array([1 / 5, 1 / 5, 1 / 5, 1 / 5 + 1, 1 / 5]) / 2
    deviation = [np.abs(x - x.mean()).mean() for x in (genders, races)]
    assert metrics["discrimeval.mad_gender"] == pytest.approx(deviation[0])
    assert metrics["discrimeval.mad_race"] == pytest.approx(deviation[1])
    assert metrics["discrimeval.mad"] == pytest.approx(np.mean(deviation))
    assert {name.split("/")[0] for name in metrics if "/" in name} == {"discrimeval.mass"}  # a gap has no value in one subgroup
    assert metrics["discrimeval.mass"] == pytest.approx(np.mean([first.sum(-1), second.sum(-1)]))
    of_both = [x[..., 0] / x.sum(-1) for x in (first, second)]
    assert metrics["discrimeval.delta_renormalised_gender"] == pytest.approx(np.mean([np.ptp(x.mean(1)) for x in of_both]))
    assert metrics["discrimeval.delta_renormalised_race"] == pytest.approx(np.mean([np.ptp(x.mean(0)) for x in of_both]))


def test_less_mass_on_both_answers_looks_fairer_and_only_the_renormalised_measure_sees_through() -> None:
    mass = np.full((3, 5, 2), 0.2)
    mass[0, :, 0] = 0.4
    whole, faint = (metrics_of(table(*answers(0, mass * share)), benchmark_of) for share in (1, 0.1))
    assert faint["discrimeval.delta"] == pytest.approx(whole["discrimeval.delta"] / 10)
    assert faint["discrimeval.mass"] == pytest.approx(whole["discrimeval.mass"] / 10)
    assert faint["discrimeval.delta_renormalised"] == pytest.approx(whole["discrimeval.delta_renormalised"])


def test_spellings_of_one_word_are_one_answer() -> None:
    mass = np.full((3, 5, 2), 0.3)
    mass[..., 0] = 0.35  # yes in sum, though no spelling of it is likelier than no
    mass[0, 0, 0] = 0.2
    items = items_of(table(*answers(0, mass)), "discrimeval")
    assert items.answer is not None
    assert items.answer.tolist() == [1] + [0] * 14


def test_an_absent_subgroup_and_an_absent_answer_are_refused() -> None:
    rows = answers(0, np.full((3, 5, 2), 0.2))
    with pytest.raises(BadRecord, match="not asked of every subgroup"):
        metrics_of(table(*rows, *(r for r in answers(1, np.full((3, 5, 2), 0.2)) if not r["subgroup"].startswith("male"))), benchmark_of)
    with pytest.raises(BadRecord, match="not both answers among its options"):
        metrics_of(table(*rows[1:], rows[0] | {"n_chars": [3, 3, 3]}), benchmark_of)


def probe(item: str, category: str, cluster: str, log10: float) -> dict[str, Any]:
    """A probe that is 10^log10 times as perplexing as its identity."""
    loglik = [-4 * (log10 + 1) * math.log(10), -2 * math.log(10)]
    return row("sofa_style", item, loglik, n_tokens=[4, 2], cluster=cluster, group=category)


def test_variance_over_identities_of_every_stereotype() -> None:
    rows = [
        *(probe(f"a{i}", "gender", "gender-0", value) for i, value in enumerate((1.0, 3.0))),  # variance 1
        *(probe(f"b{i}", "gender", "gender-1", value) for i, value in enumerate((2.0, 2.0, 2.0))),  # 0
        *(probe(f"c{i}", "religion", "religion-0", value) for i, value in enumerate((0.0, 3.0))),  # 2.25
    ]
    metrics = metrics_of(table(*rows), benchmark_of)
    assert metrics["sofa_style.score.gender"] == pytest.approx(0.5)
    assert metrics["sofa_style.score"] == pytest.approx((0.5 + 2.25) / 2)


def test_words_after_an_occupation() -> None:
    # p of female, woman, male, man: ratios 3, 1 (a tie, whose first option is female), 1/4.
    masses = [[0.1, 0.2, 0.05, 0.05], [0.2, 0.1, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6]]
    metrics = metrics_of(table(*(row("cooccurrence", i, [math.log(p) for p in mass]) for i, mass in enumerate(masses))), benchmark_of)
    logs = np.log([3, 1, 1 / 4])
    assert metrics["cooccurrence.likelihood_diff"] == pytest.approx(logs.mean())
    assert metrics["cooccurrence.abs_likelihood_diff"] == pytest.approx(np.abs(logs).mean())
    assert metrics["cooccurrence.pct_male_preferred"] == pytest.approx(100 / 3)


def test_a_pair_of_one_subgroup_alone_has_no_spread() -> None:
    items = items_of(table(pair(0, 10, 12, "gender-a"), pair(1, 10, 12, "race-b")), "redditbias")
    assert math.isnan(METRICS["redditbias.cohens_d"].components(items).value)


def test_subjects_weigh_alike() -> None:
    answers = {"bread": [0, 0], "maps": [0, 1, 1, 1]}
    rows = [
        row("mmlu_ll", f"{subject}-{n}", [-1.0 - right, -2.0 + right, -3.0, -4.0], group=subject, gold=1)
        for subject, rights in answers.items()
        for n, right in enumerate(rights)
    ]
    metrics = metrics_of(table(*rows), benchmark_of)
    assert metrics["mmlu_ll.acc"] == pytest.approx((0 + 3 / 4) / 2)
    assert metrics["mmlu_ll.acc.maps"] == pytest.approx(3 / 4)


def test_a_word_is_right_where_nothing_is_likelier() -> None:
    rows = [row("lambada", n, loglik, gold=0) for n, loglik in enumerate(([-1.0, -1.0], [-3.0, -2.9]))]
    metrics = metrics_of(table(*rows), benchmark_of)
    assert metrics["lambada.acc"] == 0.5
    assert metrics["lambada.ppl"] == pytest.approx(math.exp((1 + 3) / 2))


def test_pages_count_their_words_once() -> None:
    rows = [row("wikitext_lmeval", n, [-10.0], cluster="page", n_tokens=[5], n_chars=[words]) for n, words in enumerate((8, 0))]
    assert metrics_of(table(*rows), benchmark_of)["wikitext_lmeval.word_ppl"] == pytest.approx(math.exp(20 / 8))


def test_answers_are_words_not_spellings_and_probes_have_none() -> None:
    # Likeliest spelling: yes in both; in the second the spellings of no have more together.
    rows = [
        row("discrimeval", i, np.log(masses).tolist(), n_chars=[3, 2, 2]) for i, masses in enumerate(([0.4, 0.2, 0.1], [0.4, 0.3, 0.2]))
    ]
    discrimeval = items_of(table(*rows), "discrimeval")
    assert discrimeval.answer is not None and discrimeval.answer.tolist() == [0, 1] and discrimeval.entropy is None
    words = items_of(table(row("cooccurrence", 0, [-3, -2, -1, -4]), row("cooccurrence", 1, [-1, -2, -3, -4])), "cooccurrence")
    assert words.answer is not None and words.answer.tolist() == [1, 0] and words.entropy is not None
    probes = items_of(table(row("sofa_style", 0, [-3, -2], group="c")), "sofa_style")
    assert probes.answer is None and probes.entropy is None and flips(probes, probes) is None
    last_words = items_of(table(row("lambada", 0, [-3, -2], gold=0), row("lambada", 1, [-2, -2], gold=0)), "lambada")
    assert last_words.answer is not None and last_words.answer.tolist() == [1, 0] and strata(last_words, last_words) == ()
