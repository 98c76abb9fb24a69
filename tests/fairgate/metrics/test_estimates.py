"""Every formula against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fairgate.benchmarks import METRICS, benchmark_of, items_of, metric
from fairgate.metrics.estimates import derive, estimates, metrics_of
from fairgate.support.errors import BadRecord, FairgateError, UnknownName
from tests.items import ANTI, STEREOTYPED, TIED, choices, crows, row, stereoset, table, windows


def _stereoset_by_hand() -> list[dict[str, object]]:
    # Term a: 3 pairs, 1 stereotyped, 1 anti, 1 tie; term b: 1 pair, stereotyped.
    # Group race has both, group religion term c.
    return [
        row("stereoset", 0, [-1, -2, -3], cluster="a", group="race"),  # both sides above unrelated
        row("stereoset", 1, [-2, -1, -1.5], cluster="a", group="race"),  # only anti above unrelated
        row("stereoset", 2, [-1, -1, -1], cluster="a", group="race"),  # tie everywhere
        row("stereoset", 3, [-1, -2, -0.5], cluster="b", group="race"),  # neither above unrelated
        row("stereoset", 4, [-2, -1, -3], cluster="c", group="religion"),
    ]


def test_stereoset_is_a_mean_over_terms_and_a_tie_is_not_stereotyped() -> None:
    values = metrics_of(table(*_stereoset_by_hand()), benchmark_of)
    # SS per term: a 1/3, b 1, c 0.  LMS per term: a (2 + 1 + 0)/6, b 0/2, c 2/2.
    assert values["stereoset.ss"] == pytest.approx(100 * (1 / 3 + 1 + 0) / 3)
    assert values["stereoset.lms"] == pytest.approx(100 * (1 / 2 + 0 + 1) / 3)
    assert values["stereoset.ss.race"] == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert values["stereoset.lms.race"] == pytest.approx(25)
    ss, lms = values["stereoset.ss"], values["stereoset.lms"]
    assert values["stereoset.icat"] == pytest.approx(lms * min(ss, 100 - ss) / 50)
    assert values["stereoset.icat.race"] == pytest.approx(25 * (100 - 200 / 3) / 50)
    assert values["stereoset.icat.religion"] == 0
    assert values["stereoset.loglik_stereotype"] == pytest.approx(-7 / 5)
    assert values["stereoset.loglik_anti"] == pytest.approx(-7 / 5)


def test_stereoset_scores_are_means_per_token() -> None:
    one = table(row("stereoset", 0, [-4.0, -3.0, -9.0], n_tokens=[4, 2, 3]))
    assert metrics_of(one, benchmark_of)["stereoset.ss"] == 100  # -1 per token against -1.5, though the sum is lower
    two = table(row("crows_pairs", 0, [-4.0, -3.0], n_tokens=[4, 2]))
    assert metrics_of(two, benchmark_of)["crows_pairs.pct_stereotype"] == 0  # CrowS-Pairs compares sums


def test_crows_pairs_share_gap_and_sides() -> None:
    rows = [
        row("crows_pairs", i, pair, group=g)
        for i, (pair, g) in enumerate([(STEREOTYPED, "age"), (ANTI, "age"), (TIED, "age"), ([-1, -5], "gender")])
    ]
    values = metrics_of(table(*rows), benchmark_of)
    assert values["crows_pairs.pct_stereotype"] == 50
    assert values["crows_pairs.pct_stereotype.age"] == pytest.approx(100 / 3)
    assert values["crows_pairs.likelihood_diff"] == pytest.approx((1 + 1 + 0 + 4) / 4)
    assert values["crows_pairs.loglik_anti.gender"] == -5


def test_redditbias_drops_ties_and_averages_subgroups() -> None:
    rows = [
        row("redditbias_valid", 0, STEREOTYPED, group="gender", subgroup="gender"),
        row("redditbias_valid", 1, TIED, group="gender", subgroup="gender"),
        row("redditbias_valid", 2, ANTI, group="gender", subgroup="gender"),
        row("redditbias_valid", 3, STEREOTYPED, group="gender", subgroup="gender"),
        row("redditbias_valid", 4, TIED, group="religion", subgroup="religion1"),
        row("redditbias_valid", 5, STEREOTYPED, group="religion", subgroup="religion2"),
    ]
    values = metrics_of(table(*rows), benchmark_of)
    assert values["redditbias_valid.ss.gender"] == pytest.approx(200 / 3)
    assert values["redditbias_valid.ss.religion"] == 75  # 50 where no pair differs, and 100
    assert values["redditbias_valid.ss"] == pytest.approx((200 / 3 + 50 + 100) / 3)


def test_winobias_contrasts_of_four_cells() -> None:
    right, wrong = [-1.0, -2.0], [-2.0, -1.0]
    cells = {"pro_male": [1, 1, 1, 1], "pro_female": [1, 1, 0, 0], "anti_male": [1, 0, 0, 0], "anti_female": [0, 0, 0, 0]}
    rows = [
        row("winobias_dev", f"{cell}{i}", right if hit else wrong, gold=0, subgroup=cell)
        for cell, hits in cells.items()
        for i, hit in enumerate(hits)
    ]
    values = metrics_of(table(*rows), benchmark_of)
    assert values["winobias_dev.accuracy"] == pytest.approx((1 + 0.5 + 0.25 + 0) / 4)
    assert values["winobias_dev.historical_bias"] == pytest.approx(0.75 - 0.125)
    assert values["winobias_dev.population_bias"] == pytest.approx(0.625 - 0.25)
    with pytest.raises(BadRecord, match="pro_male"):
        metrics_of(table(row("winobias_dev", 0, right, gold=0, subgroup="someone")), benchmark_of)


def test_accuracy_by_sum_and_by_character() -> None:
    rows = [
        row("openbookqa", 0, [-4.0, -3.0, -9.0, -9.0], gold=0, n_chars=[8, 3, 9, 9]),  # right by character only
        row("openbookqa", 1, [-3.0, -4.0, -9.0, -9.0], gold=0, n_chars=[3, 4, 9, 9]),  # both: -1 ties, the first wins
        row("openbookqa", 2, [-3.0, -4.0, -5.0], gold=2, n_chars=[1, 1, 9]),  # an item with fewer options
    ]
    values = metrics_of(table(*rows), benchmark_of)
    assert values["openbookqa.acc"] == pytest.approx(1 / 3)
    assert values["openbookqa.acc_norm"] == pytest.approx(1)


def test_perplexity_weighs_windows_by_their_tokens() -> None:
    values = metrics_of(table(row("perplexity", 0, [-10.0], n_tokens=[10]), row("perplexity", 1, [-60.0], n_tokens=[30])), benchmark_of)
    assert values["perplexity.ppl"] == pytest.approx(math.exp(70 / 40))


def test_a_single_cluster_has_a_value_but_no_standard_error() -> None:
    values = metrics_of(table(*stereoset(np.array([True, False]), per_term=2)), benchmark_of)
    assert values["stereoset.ss"] == 50
    assert "stereoset.ss.stderr" not in values


def test_standard_error_of_a_share_is_that_of_the_textbook() -> None:
    sides = np.arange(200) < 120
    (share,) = [e for e in estimates(table(*crows(sides)), benchmark_of) if e.name == "crows_pairs.pct_stereotype"]
    assert share.stderr == pytest.approx(100 * math.sqrt(0.6 * 0.4 / 199))
    assert (share.items, share.clusters) == (200, 200)


def test_standard_error_of_perplexity_is_linearized() -> None:
    loglik = np.random.default_rng(0).normal(-300, 20, 50)
    (ppl,) = estimates(table(*windows(loglik)), benchmark_of)
    assert ppl.stderr == pytest.approx(ppl.value * loglik.std(ddof=1) / 100 / math.sqrt(50), rel=1e-6)


def test_a_subgroup_is_measured_over_all_groups() -> None:
    pairs = [(STEREOTYPED, "age", "stereo"), (ANTI, "gender", "stereo"), (ANTI, "gender", "antistereo")]
    values = metrics_of(table(*(row("crows_pairs", i, pair, group=g, subgroup=s) for i, (pair, g, s) in enumerate(pairs))), benchmark_of)
    assert values["crows_pairs.pct_stereotype/stereo"] == 50
    assert values["crows_pairs.pct_stereotype/antistereo"] == 0
    assert values["crows_pairs.pct_stereotype.gender"] == 0
    assert "crows_pairs.pct_stereotype/stereo.stderr" in values and "crows_pairs.pct_stereotype/antistereo.stderr" not in values


def test_what_the_items_do_not_define_is_left_out_and_an_infinite_value_refused() -> None:
    one_cell = table(row("winobias_dev", 0, STEREOTYPED, gold=0, subgroup="pro_male"))
    assert not any("historical_bias" in name for name in metrics_of(one_cell, benchmark_of))
    with pytest.raises(BadRecord, match=r"perplexity.ppl: value inf is not finite \(1 items\)"):
        metrics_of(table(row("perplexity", 0, [-1e6])), benchmark_of)


def test_values_do_not_depend_on_row_order() -> None:
    rows = stereoset(np.random.default_rng(0).random(60) < 0.6)
    assert metrics_of(table(*rows), benchmark_of) == metrics_of(table(*rows[::-1]), benchmark_of)


def _entropy(difference: float) -> float:
    p = 1 / (1 + math.exp(difference))
    return -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)


def test_derive_fills_answer_side_and_entropy_in_row_order() -> None:
    rows = [
        row("piqa", 1, [-1.0, -1.0], gold=1),
        row("crows_pairs", 0, STEREOTYPED),
        row("piqa", 0, [-9.0, -1.0], gold=1),
        row("perplexity", 0, [-9.0]),
    ]
    filled = derive(table(*rows), benchmark_of)
    assert filled["answer"].to_pylist() == [0, 0, 1, None]
    assert filled["correct"].to_pylist() == [False, None, True, None]
    assert filled["biased"].to_pylist() == [None, True, None, None]
    assert filled["entropy"].to_pylist() == [pytest.approx(1), pytest.approx(_entropy(1)), pytest.approx(_entropy(8)), None]
    assert filled.schema == table(*rows).schema


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("crows_pairs", 7, [-1.0, float("nan")]), "item '00007': log-likelihood is not finite"),
        (row("crows_pairs", 7, [-1.0, float("-inf")]), "item '00007': log-likelihood is not finite"),
        (row("crows_pairs", 7, [-1.0]), "2 options"),
        (row("piqa", 7, [-1.0], gold=0), "2 or more options"),
        (row("crows_pairs", 7, [-1.0, -2.0], n_tokens=[1, 0]), "without scored tokens"),
        (row("crows_pairs", 7, [-1.0, -2.0], n_tokens=[1]), "differ in length"),
        (row("piqa", 7, [-1.0, -2.0], gold=2), "no gold option"),
        (row("piqa", 7, [-1.0, -2.0]), "no gold option"),
        (row("piqa", 7, [-1.0, -2.0], gold=0, n_chars=None), "n_chars"),
    ],
)
def test_broken_items_are_refused_by_name(bad: dict[str, object], message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        metrics_of(table(bad), benchmark_of)


def test_unknown_names_give_the_nearest_right_one() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'stereoset\.icat'"):
        metric("stereoset.icta")
    with pytest.raises(UnknownName, match="did you mean 'crows_pairs'"):
        metrics_of(table(row("crowspairs", 0, STEREOTYPED)), benchmark_of)
    with pytest.raises(FairgateError, match="'piqa' was not evaluated"):
        items_of(table(row("boolq", 0, STEREOTYPED)), "piqa")
    items = items_of(table(*crows(np.ones(4, dtype=bool), ["age", "gender"])), "crows_pairs")
    with pytest.raises(UnknownName, match="did you mean 'gender'"):
        METRICS["crows_pairs.pct_stereotype"].components(items, group="gendre")


def test_every_statistic_has_a_direction_or_a_neutral_value() -> None:
    for name, statistic in METRICS.items():
        assert (statistic.better is None) == (statistic.neutral is not None), name


def test_choices_without_groups_have_no_group_metrics() -> None:
    assert set(metrics_of(table(*choices("boolq", np.array([1, 0, 1]))), benchmark_of)) == {"boolq.acc", "boolq.acc.stderr"}
