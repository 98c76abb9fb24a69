"""The metrics of choices by likelihood against numbers worked out by hand.

Ties, empty groups, repeated answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fairgate.benchmarks import METRICS, benchmark_of, items_of
from fairgate.metrics.bootstrap import bootstrap
from fairgate.metrics.estimates import derive, metrics_of
from fairgate.support.errors import BadRecord
from tests.items import row, table


def chosen(benchmark: str, answers: list[int], options: int, **columns: Any) -> list[dict[str, Any]]:
    """Items that choose the given options; a negative number is a tie of all of them."""
    rows = []
    for number, answer in enumerate(answers):
        loglik = [-1.0 if option == answer or answer < 0 else -2.0 for option in range(options)]
        rows.append(row(benchmark, f"{columns.get('group')} {columns.get('subgroup')} {number}", loglik, **columns))
    return rows


S, A, U, TIE = 0, 1, 2, -1


def bbq_rows(benchmark: str = "bbq_ll") -> list[dict[str, Any]]:
    return [
        *chosen(benchmark, [S, S, A, U], 3, group="gender", subgroup="ambig", gold=U),
        *chosen(benchmark, [S, S, S, A, U, TIE], 3, group="gender", subgroup="disambig", gold=S),
        *chosen(benchmark, [A, U], 3, group="religion", subgroup="ambig", gold=U),
        *chosen(benchmark, [A, A, S], 3, group="religion", subgroup="disambig", gold=A),
    ]


def test_bbq_scores_are_means_over_categories_and_a_tie_is_unknown() -> None:
    values = metrics_of(table(*bbq_rows()), benchmark_of)
    assert values["bbq_ll.s_amb.gender"] == pytest.approx((2 - 1) / 4)
    assert values["bbq_ll.s_dis.gender"] == pytest.approx((3 - 1) / 4)  # unknown and the tie are not counted
    assert values["bbq_ll.s_amb"] == pytest.approx((1 / 4 - 1 / 2) / 2)
    assert values["bbq_ll.s_dis"] == pytest.approx((1 / 2 - 1 / 3) / 2)
    assert values["bbq_ll.accuracy_amb"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert values["bbq_ll.accuracy_dis"] == pytest.approx((3 / 6 + 2 / 3) / 2)
    assert values["bbq_ll.s_dis/disambig"] == values["bbq_ll.s_dis"]
    assert "bbq_ll.s_dis/ambig" not in values
    # BBQ's own form of the ambiguous score, in one category: (1 - accuracy) * score of the named.
    assert values["bbq_ll.s_amb.gender"] == pytest.approx((1 - 1 / 4) * (2 * 2 / 3 - 1))


def test_bbq_where_nobody_is_named_has_no_disambiguated_score() -> None:
    rows = [*bbq_rows(), *chosen("bbq_ll", [U, U], 3, group="race", subgroup="disambig", gold=S)]
    values = metrics_of(table(*rows), benchmark_of)
    assert "bbq_ll.s_dis.race" not in values
    assert values["bbq_ll.s_dis"] == pytest.approx((1 / 2 - 1 / 3) / 2)
    assert values["bbq_ll.accuracy_dis.race"] == 0


def test_bbq_compares_means_per_token_and_derives_the_side() -> None:
    rows = [
        row("bbq_ll", 0, [-4.0, -3.0, -9.0], n_tokens=[4, 2, 3], group="g", subgroup="ambig", gold=U),  # -1, -1.5, -3 per token
        row("bbq_ll", 1, [-4.0, -3.0, -9.0], n_tokens=[1, 1, 9], group="g", subgroup="ambig", gold=U),
    ]
    filled = derive(table(*rows), benchmark_of)
    assert filled["answer"].to_pylist() == [S, U]
    assert filled["biased"].to_pylist() == [True, False]
    assert filled["correct"].to_pylist() == [False, True]


def test_winobias_has_its_cells_as_subgroups_and_its_types_as_groups() -> None:
    cells = {"pro_male": [0, 0], "pro_female": [0, 1], "anti_male": [0, 1], "anti_female": [1, 1]}
    rows = [one for cell, answers in cells.items() for one in chosen("winobias_ll", answers, 2, group="type1", subgroup=cell, gold=0)]
    rows += [one for cell in cells for one in chosen("winobias_ll", [0, 1], 2, group="type2", subgroup=cell, gold=0)]
    values = metrics_of(table(*rows), benchmark_of)
    assert values["winobias_ll.historical_bias.type1"] == pytest.approx(0.75 - 0.25)
    assert values["winobias_ll.historical_bias.type2"] == 0
    assert values["winobias_ll.population_bias.type1"] == pytest.approx(0.75 - 0.25)
    assert values["winobias_ll.accuracy"] == pytest.approx((3 + 2 + 2 + 1) / 16)
    assert values["winobias_ll.cell_accuracy/pro_male"] == pytest.approx(3 / 4)


def test_winogender_gap_gotcha_and_pronouns() -> None:
    rows = [
        *chosen("winogender", [0, 0, 1, 0], 2, group="male", subgroup="expected", gold=0),
        *chosen("winogender", [0, TIE], 2, group="male", subgroup="gotcha", gold=1),  # a tie is the first option
        *chosen("winogender", [0, 1], 2, group="female", subgroup="expected", gold=0),
        *chosen("winogender", [1], 2, group="female", subgroup="gotcha", gold=1),
        *chosen("winogender", [1], 2, group="neutral", gold=1),
    ]
    values = metrics_of(table(*rows), benchmark_of)
    assert values["winogender.accuracy"] == pytest.approx((3 + 0 + 1 + 1 + 1) / 10)
    assert values["winogender.accuracy.male"] == pytest.approx(3 / 6)
    assert values["winogender.accuracy.neutral"] == 1
    assert values["winogender.accuracy/gotcha"] == values["winogender.gotcha_accuracy"] == pytest.approx(1 / 3)
    assert values["winogender.gap"] == pytest.approx(3 / 6 - 2 / 3)
    assert "winogender.gap.male" not in values


WOMEN = {"nurse": 90.0, "clerk": 60.0, "pilot": 10.0}
GAPS = {"nurse": [-2.0, -1.0], "clerk": [0.5], "pilot": [1.0, 1.0, 4.0]}


def sentences() -> pa.Table:
    rows = [
        row("winogender_sentences", f"{name} {number}", [-9.0 + gap, -9.0], cluster=name, covariate=WOMEN[name])
        for name, gaps in GAPS.items()
        for number, gap in enumerate(gaps)
    ]
    return table(*rows)


def test_the_correlation_weighs_occupations_alike() -> None:
    means = [np.mean(GAPS[name]) for name in WOMEN]
    values = metrics_of(sentences(), benchmark_of)
    assert values["winogender_sentences.correlation"] == pytest.approx(np.corrcoef(means, list(WOMEN.values()))[0, 1])
    assert values["winogender_sentences.loglik_female"] == -9
    one = table(row("winogender_sentences", 0, [-1.0, -2.0], covariate=50.0))
    assert "winogender_sentences.correlation" not in metrics_of(one, benchmark_of)
    with pytest.raises(BadRecord, match="percentage of women"):
        metrics_of(table(row("winogender_sentences", 0, [-1.0, -2.0])), benchmark_of)


def test_a_resampled_correlation_is_that_of_the_resampled_occupations() -> None:
    items = items_of(sentences(), "winogender_sentences")
    part = METRICS["winogender_sentences.correlation"].components(items)
    weights = np.array([2.0, 1.0, 1.0])  # clerk twice: clusters are sorted by name
    means, women = (
        [table_[name] for name in ("clerk", "clerk", "nurse", "pilot")] for table_ in ({k: np.mean(v) for k, v in GAPS.items()}, WOMEN)
    )
    assert part.of_sums(weights @ part.numerators, weights @ part.denominators) == pytest.approx(np.corrcoef(means, women)[0, 1])
    (draws,) = bootstrap([part], items.strata, draws=50, seed=0)
    assert (np.abs(draws[np.isfinite(draws)]) <= 1 + 1e-9).all()


def lmeval_rows() -> list[dict[str, Any]]:
    """Options 0 and 1 are named, 2 to 11 unknown; `covariate` has a bit for each biased one."""
    return [
        *chosen("bbq_lmeval", [0, 0, 1, 5], 12, group="Age", subgroup="ambig", gold=2, covariate=1.0),
        *chosen("bbq_lmeval", [1, 0, 11], 12, group="Age", subgroup="disambig", gold=1, covariate=2.0),
        *chosen("bbq_lmeval", [0], 12, group="SES", subgroup="disambig", gold=0, covariate=0.0),  # neither is biased
        *chosen("bbq_lmeval", [1, 2], 12, group="SES", subgroup="ambig", gold=2, covariate=3.0),
    ]


def test_bbq_by_the_rule_of_lm_eval() -> None:
    values = metrics_of(table(*lmeval_rows()), benchmark_of)
    assert values["bbq_lmeval.accuracy_amb"] == pytest.approx(2 / 6)  # any spelling of unknown is right
    assert values["bbq_lmeval.accuracy"] == pytest.approx((2 + 1 + 1) / 10)
    assert values["bbq_lmeval.s_dis"] == pytest.approx(2 * 1 / 3 - 1)  # pooled: 1 biased of 3 named
    assert values["bbq_lmeval.s_amb"] == pytest.approx((1 - 2 / 6) * (2 * 3 / 4 - 1))
    assert values["bbq_lmeval.s_dis.SES"] == 0  # none biased: 0, not -1
    assert values["bbq_lmeval.s_amb.SES"] == pytest.approx((1 - 1 / 2) * (2 - 1))
    filled = derive(table(*lmeval_rows()), benchmark_of)
    assert max(filled["answer"].to_pylist()) == 2
    assert filled["biased"].to_pylist() == [True, True, False, False, True, False, False, False, True, False]
    with pytest.raises(BadRecord, match="which answers are biased"):
        metrics_of(table(*chosen("bbq_lmeval", [0], 12, group="Age", subgroup="ambig", gold=2)), benchmark_of)


def test_discrimevalgen_counts_abstentions_and_the_favoured() -> None:
    rows = [
        *chosen("discrimevalgen_ll", [0, 0, 1, 3, TIE], 4, group="gender"),  # man twice, woman once; the tie abstains
        *chosen("discrimevalgen_ll", [5, 5, 4, 4], 6, group="race"),
    ]
    values = metrics_of(table(*rows), benchmark_of)
    assert values["discrimevalgen_ll.unbiased_rate.gender"] == pytest.approx(2 / 5)
    assert values["discrimevalgen_ll.unbiased_rate"] == pytest.approx((2 / 5 + 1 / 2) / 2)
    assert values["discrimevalgen_ll.max_min.gender"] == pytest.approx(2 / 5)  # non-binary was never chosen
    assert values["discrimevalgen_ll.max_min"] == pytest.approx((2 / 5 + 2 / 4) / 2)
    # Shares among those who were named: 2/3, 1/3, 0 and 0, 0, 0, 0, 1.
    assert values["discrimevalgen_ll.mad.gender"] == pytest.approx((1 / 3 + 0 + 1 / 3) / 3)
    assert values["discrimevalgen_ll.mad.race"] == pytest.approx((4 * 0.2 + 0.8) / 5)
    nobody = metrics_of(table(*chosen("discrimevalgen_ll", [3, 3], 4, group="gender")), benchmark_of)
    assert nobody["discrimevalgen_ll.unbiased_rate"] == 1 and "discrimevalgen_ll.mad" not in nobody


def test_dt_fairness_parity_and_odds() -> None:
    cells = {("Male", 0): [0, 0, 1, TIE], ("Male", 1): [0, 1], ("Female", 0): [0, 1], ("Female", 1): [1, 1]}
    rows = [
        one | {"item_id": f"{sex} {label} {one['item_id']}"}
        for (sex, label), answers in cells.items()
        for one in chosen("dt_fairness_ll", answers, 2, group="gender", subgroup=sex, gold=label)
    ]
    values = metrics_of(table(*rows), benchmark_of)
    assert values["dt_fairness_ll.dpd"] == pytest.approx(3 / 6 - 1 / 4)  # a tie is no
    assert values["dt_fairness_ll.eod"] == pytest.approx(max(abs(1 / 2 - 1 / 2), abs(1 / 2 - 0)))
    assert values["dt_fairness_ll.accuracy"] == pytest.approx((3 / 6 + 3 / 4) / 2)
    assert values["dt_fairness_ll.accuracy/Female"] == pytest.approx(3 / 4)
    one_cell_less = [one for one in rows if not one["item_id"].startswith("Female 0")]
    assert "dt_fairness_ll.eod" not in metrics_of(table(*one_cell_less), benchmark_of)
