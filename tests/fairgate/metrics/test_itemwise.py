"""Flips of one model over several benchmarks.

The worst part, and p-values adjusted over the sets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairgate.benchmarks import BENCHMARKS, items_of
from fairgate.metrics.flips import ABSTENTION, GUARDS, SMALLEST, itemwise, mcnemar
from fairgate.metrics.items import Items
from tests.items import ANTI, STEREOTYPED, choices, row, table, windows


def _pair(name: str, now: list[dict[str, Any]], before: list[dict[str, Any]]) -> tuple[Items, Items]:
    return items_of(table(*now), name), items_of(table(*before), name)


def _crows(turned: dict[tuple[str, str], tuple[int, int]]) -> tuple[Items, Items]:
    """Per group and subgroup (n, of them newly stereotyped); the parent prefers no stereotype."""
    before, now = [], []
    for (group, subgroup), (n, worse) in turned.items():
        for i in range(n):
            place = {"group": group, "subgroup": subgroup}
            before.append(row("crows_pairs", f"{group} {subgroup} {i}", ANTI, **place))
            now.append(row("crows_pairs", f"{group} {subgroup} {i}", STEREOTYPED if i < worse else ANTI, **place))
    return _pair("crows_pairs", now, before)


def test_the_worst_part_is_a_group_or_subgroup_with_enough_items() -> None:
    pair = _crows({("age", "s"): (40, 4), ("gender", "s"): (30, 6), ("gender", "t"): (30, 12), ("race", "u"): (SMALLEST - 1, 29)})
    (found,) = itemwise("q", [pair])
    assert found.worst is not None and (found.worst.group, found.worst.subgroup, found.worst.n) == (None, "t", 30)
    assert found.worst.new_bias == pytest.approx(12 / 30)
    assert (found.model, found.benchmark, found.flips.n) == ("q", "crows_pairs", 129)
    assert [stratum.name for stratum in found.strata] == ["low", "medium", "high"]
    parts = {part.name: (part.flips.n, part.flips.new_bias, sum(stratum.n for stratum in part.strata)) for part in found.parts}
    groups = {"age": (40, 0.1, 40), "gender": (60, 0.3, 60), "race": (29, 1.0, 29)}
    assert parts == {**groups, "s": (70, 10 / 70, 70), "t": (30, 0.4, 30), "u": (29, 1.0, 29)}


def test_a_group_in_which_all_that_could_turn_did_is_worse_than_one_with_more_flips() -> None:
    sides = [STEREOTYPED] * 30 + [ANTI] * 10
    before = [row("crows_pairs", f"a{i}", side, group="a") for i, side in enumerate(sides)]
    before += [row("crows_pairs", f"b{i}", ANTI, group="b") for i in range(40)]
    now = [one | {"option_loglik": STEREOTYPED} if one["item_id"][0] == "a" or int(one["item_id"][1:]) < 12 else one for one in before]
    (found,) = itemwise("q", [_pair("crows_pairs", now, before)])
    assert found.worst is not None and (found.worst.group, found.worst.new_bias, found.worst.answer_flips) == ("a", 1, 0.25)


def test_without_sides_the_worst_part_is_the_one_that_flips_most_and_one_part_is_none() -> None:
    before = choices("piqa", np.ones(60, dtype=bool))
    now = choices("piqa", np.arange(60) >= 9)
    for i, (one, other) in enumerate(zip(before, now, strict=True)):
        one["group"] = other["group"] = "a" if i < 30 else "b"
    (found,) = itemwise("q", [_pair("piqa", now, before)])
    assert found.worst is not None and (found.worst.group, found.worst.answer_flips) == ("a", 0.3)
    assert found.adjusted is None and found.flips.p_value is None
    (alone,) = itemwise("q", [_crows({("age", "s"): (40, 4)})])
    assert alone.worst is not None and alone.worst.new_bias == 0.1  # the group and its only subgroup
    (small,) = itemwise("q", [_crows({("age", "s"): (10, 4), ("race", "t"): (10, 1)})])
    assert small.worst is None


def test_p_values_are_adjusted_over_the_sets_with_sides_and_plain_text_is_left_out() -> None:
    text = table(*windows(np.array([-5.0])))
    stereoset = [row("stereoset", i, [*ANTI, -9.0]) for i in range(20)]
    turned = [one | {"option_loglik": [*STEREOTYPED, -9.0]} if i < 3 else one for i, one in enumerate(stereoset)]
    pairs = [
        _crows({("age", "s"): (40, 8)}),
        _pair("piqa", choices("piqa", np.ones(4, dtype=bool)), choices("piqa", np.zeros(4, dtype=bool))),
        (items_of(text, "perplexity"), items_of(text, "perplexity")),
        _pair("stereoset", turned, stereoset),
    ]
    found = {one.benchmark: one for one in itemwise("q", pairs)}
    assert list(found) == ["crows_pairs", "piqa", "stereoset"]
    # Two tests: the smaller p doubled, the larger as it is.
    assert found["crows_pairs"].adjusted == pytest.approx(2 * mcnemar(8, 0))
    assert found["stereoset"].adjusted == pytest.approx(mcnemar(3, 0))
    assert found["piqa"].adjusted is None


def test_the_named_metrics_exist() -> None:
    known = {key for benchmark in BENCHMARKS.values() for key in benchmark.statistics}
    assert {*ABSTENTION, *GUARDS} <= known
