"""Same items or none; flips and their exact test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from stages.common.compare import NET_NEW_BIAS, NEWLY_BIASED, UnequalItems, flips, mcnemar, require_same_items
from stages.common.errors import FairgateError, UnknownName
from stages.common.metrics import Items
from tests.items import choices, crows, table, windows


def _pair(q: list[int], b: list[int], groups: list[str] | None = None) -> tuple[Items, Items]:
    tables = [table(*crows(np.array(sides, dtype=bool), groups)) for sides in (q, b)]
    return Items.of(tables[0], "crows_pairs"), Items.of(tables[1], "crows_pairs")


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
    found = flips(Items.of(table(*rows[::-1]), "crows_pairs"), Items.of(table(*rows), "crows_pairs"))
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
    q, b = (Items.of(table(*choices("piqa", np.array(right))), "piqa") for right in ([1, 0, 1, 1], [1, 1, 1, 1]))
    found = flips(q, b)
    assert found is not None and found.answer_flips == 0.25 and found.bias_flips is None
    text = Items.of(table(*windows(np.array([-5.0]))), "perplexity")
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
    q, b = (Items.of(table(*part), "crows_pairs") for part in (rows[:2], rows))
    with pytest.raises(UnequalItems):
        flips(q, b)
