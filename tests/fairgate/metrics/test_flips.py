"""Same items or none; flips and their exact test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from fairgate.benchmarks import items_of
from fairgate.metrics.flips import (
    NET_NEW_BIAS,
    NEWLY_BIASED,
    Stratum,
    UnequalItems,
    benjamini_hochberg,
    flips,
    mcnemar,
    require_same_items,
    strata,
    strata_of,
)
from fairgate.metrics.items import Items
from fairgate.support.errors import FairgateError, UnknownName
from tests.items import choices, crows, row, table, windows


def _pair(q: list[int], b: list[int], groups: list[str] | None = None) -> tuple[Items, Items]:
    tables = [table(*crows(np.array(sides, dtype=bool), groups)) for sides in (q, b)]
    return items_of(tables[0], "crows_pairs"), items_of(tables[1], "crows_pairs")


def test_flips_in_both_directions() -> None:
    q, b = _pair([1, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1])
    found = flips(q, b)
    assert found is not None
    assert (found.newly_biased, found.newly_unbiased) == (3, 1)
    assert found.new_bias == 3 / 4 and found.reverse == 1 / 2
    assert found.answer_flips == found.bias_flips == pytest.approx(4 / 6)
    assert found.p_value == pytest.approx(2 * binom.cdf(1, 4, 0.5))
    assert NET_NEW_BIAS.components(q, b).value == pytest.approx(2 / 6)
    assert NEWLY_BIASED.components(q, b).value == pytest.approx(3 / 6)


def test_items_are_paired_by_id_not_by_row() -> None:
    rows = crows(np.array([1, 0, 0, 1, 0], dtype=bool))
    found = flips(items_of(table(*rows[::-1]), "crows_pairs"), items_of(table(*rows), "crows_pairs"))
    assert found is not None and found.bias_flips == 0


def test_flips_by_group_and_where_the_condition_never_holds() -> None:
    q, b = _pair([1, 1, 1, 1], [1, 0, 1, 0], ["age", "gender"])
    age, gender = flips(q, b, "age"), flips(q, b, "gender")
    assert age is not None and gender is not None
    assert age.new_bias is None and age.reverse == 0 and age.p_value == 1
    assert gender.new_bias == 1 and gender.reverse is None and gender.n == 2
    with pytest.raises(UnknownName, match="did you mean 'gender'"):
        flips(q, b, "gendr")


def test_choices_flip_without_bias_and_text_not_at_all() -> None:
    q, b = (items_of(table(*choices("piqa", np.array(right))), "piqa") for right in ([1, 0, 1, 1], [1, 1, 1, 1]))
    found = flips(q, b)
    assert found is not None and found.answer_flips == 0.25 and found.bias_flips is None
    text = items_of(table(*windows(np.array([-5.0]))), "perplexity")
    assert flips(text, text) is None
    with pytest.raises(FairgateError, match="sentence pairs"):
        NET_NEW_BIAS.components(q, b)


def test_mcnemar_is_exact() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 0) == pytest.approx(2 * 0.5**5)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("task_version", "2"),
        ("prompt_hash", "another prompt"),
        ("cluster", "another"),
        ("group", "another"),
        ("subgroup", "another"),
        ("gold", 1),
        ("n_tokens", [1, 2]),
        ("n_chars", [1, 2]),
    ],
)
def test_any_difference_between_the_items_is_refused(column: str, value: Any) -> None:
    rows = crows(np.ones(3, dtype=bool))
    require_same_items(table(*rows), table(*rows[::-1]))
    with pytest.raises(UnequalItems, match=f"item '00001'.*{column} differs"):
        require_same_items(table(rows[0], rows[1] | {column: value}, rows[2]), table(*rows))


def test_an_item_missing_on_either_side_is_refused() -> None:
    rows = crows(np.ones(3, dtype=bool))
    with pytest.raises(UnequalItems, match="item '00002': 1 items are missing in the table of the candidate"):
        require_same_items(table(*rows[:2]), table(*rows))
    with pytest.raises(UnequalItems, match="table of the reference"):
        require_same_items(table(*rows), table(*rows[:2]))
    q, b = (items_of(table(*part), "crows_pairs") for part in (rows[:2], rows))
    with pytest.raises(UnequalItems):
        flips(q, b)


def test_flips_of_a_subgroup() -> None:
    rows = [
        (crows(np.array([side]))[0] | {"item_id": str(i), "group": group, "subgroup": subgroup})
        for i, (side, group, subgroup) in enumerate([(1, "race", "a"), (1, "race", "b"), (0, "race", "b"), (0, "age", "b")])
    ]
    turned = [rows[0], *(crows(np.array([not i]))[0] | {**rows[i], "option_loglik": rows[0]["option_loglik"]} for i in (1, 2, 3))]
    q, b = items_of(table(*turned), "crows_pairs"), items_of(table(*rows), "crows_pairs")
    found = {(g, s): flips(q, b, g, s) for g, s in ((None, None), ("race", None), ("race", "b"), ("race", "a"), (None, "b"))}
    assert {key: (f.n, f.newly_biased, f.new_bias) for key, f in found.items() if f} == {
        (None, None): (4, 2, 1.0),
        ("race", None): (3, 1, 1.0),
        ("race", "b"): (2, 1, 1.0),
        ("race", "a"): (1, 0, None),
        (None, "b"): (3, 2, 1.0),
    }


def test_strata_are_closed_above() -> None:
    third = 1 / 3
    assert strata_of([0, third, np.nextafter(third, 1), 2 * third, np.nextafter(2 * third, 1), 1]).tolist() == [0, 0, 1, 1, 2, 2]


def test_flips_by_the_certainty_of_the_parent() -> None:
    # Two options with odds e^d : 1 have 0.011 bits for d = 7, 0.53 for d = 2 and 1 for a tie.
    parent = [[-1, -8], [-1, -8], [-8, -1], [-1, -3], [-1, -1], [-1, -1]]
    now = [[-1, -1.2], [-8, -1], [-8, -1], [-3, -1], [-1, -1], [-1, -2]]
    groups = ["a", "a", "b", "a", "a", "b"]
    q, b = (
        items_of(table(*(row("crows_pairs", i, x, group=groups[i]) for i, x in enumerate(side))), "crows_pairs") for side in (now, parent)
    )
    assert strata(q, b) == (Stratum("low", 3, 1 / 3, 1 / 3), Stratum("medium", 1, 1.0, 1.0), Stratum("high", 2, 0.5, 0.5))
    assert strata(q, b, "b") == (Stratum("low", 1, 0.0, 0.0), Stratum("medium", 0, None, None), Stratum("high", 1, 1.0, 1.0))
    assert [s.alarming for s in strata(q, b)] == [True, False, False]
    assert not any(s.alarming for s in strata(q, b, "b"))
    text = items_of(table(*windows(np.array([-5.0]))), "perplexity")
    assert strata(text, text) == ()


def test_strata_of_choices_have_no_bias_and_count_their_own_options() -> None:
    # Three options, two of them equally likely: ln 2 / ln 3 = 0.631, medium.
    # They are padded beside an item with four.
    rows = [row("piqa", 0, [-1, -1, -99], gold=0), row("piqa", 1, [-1, -1, -1, -1], gold=0)]
    items = items_of(table(*rows), "piqa")
    assert strata(items, items) == (Stratum("low", 0, None, None), Stratum("medium", 1, 0.0, None), Stratum("high", 1, 0.0, None))


def test_benjamini_hochberg_by_hand() -> None:
    # Sorted: 0.01 * 3/1, 0.04 * 3/2, 0.041 * 3/3; each at most what follows.
    assert benjamini_hochberg([0.041, 0.01, 0.04]) == pytest.approx([0.041, 0.03, 0.041])
    assert benjamini_hochberg([1.0, 1.0]) == [1, 1]
    assert benjamini_hochberg([0.04]) == [0.04]
    assert benjamini_hochberg([]) == []


def test_no_discordant_items_are_no_evidence() -> None:
    q, b = _pair([1, 0, 1], [1, 0, 1])
    found = flips(q, b)
    assert found is not None and found.p_value == 1 and found.new_bias == found.reverse == 0


def test_an_item_without_an_answer_of_both_is_no_flip() -> None:
    # -1 is an answer that could not be read.
    # Of the three others one turned stereotyped (0) and one back.
    def bbq(answers: list[int]) -> Items:
        columns = {"n_chars": None, "text": "", "status": "ok", "gold": 2, "group": "Religion", "subgroup": "ambig"}
        return items_of(table(*(row("bbq", i, [], **columns, answer=answer) for i, answer in enumerate(answers))), "bbq")

    q, b = bbq([0, 2, 0, -1, 2]), bbq([2, 0, 0, 0, -1])
    found = flips(q, b)
    assert found is not None and (found.n, found.newly_biased, found.newly_unbiased) == (3, 1, 1)
    assert found.answer_flips == found.bias_flips == pytest.approx(2 / 3)
    assert (found.new_bias, found.reverse) == (1, 1 / 2)
    assert NEWLY_BIASED.components(q, b).value == pytest.approx(1 / 3) and NET_NEW_BIAS.components(q, b).value == 0
    assert flips(bbq([-1]), bbq([0])) is None and strata(q, b) == ()
