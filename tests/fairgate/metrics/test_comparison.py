"""Levels and paired differences of several models, against the engine and against what pairing must
give.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairgate.benchmarks import benchmark_of, items_of
from fairgate.metrics.comparison import Comparison, Interval, Slice, compare
from fairgate.metrics.estimates import estimates
from fairgate.metrics.items import Items
from tests.items import crows, flipped, row, table, windows

SIDES = np.arange(300) % 3 == 0  # 100 of 300 stereotyped: 16.7 points below neutral
GROUPS = ["age", "gender"]


def compared(items: dict[str, Items], cells: list[Slice], pairs: list[tuple[str, str]], **how: Any) -> list[Comparison]:
    """`compare` with the statistics of the items' own benchmark."""
    some = next(iter(items.values()))
    return compare(items, benchmark_of(some.benchmark).statistics, cells, pairs, **how)


def _compare(cells: list[Slice], **sides: np.ndarray) -> list[Comparison]:
    items = {name: items_of(table(*crows(side, GROUPS)), "crows_pairs") for name, side in sides.items()}
    pairs = [(name, "base") for name in items if name != "base"]
    return compared(items, cells, pairs, alpha=0.025, draws=2000, seed=0)


def test_levels_are_the_engines_within_the_textbook_interval() -> None:
    (whole, group) = _compare([Slice("pct_stereotype"), Slice("pct_stereotype", "age")], base=SIDES)
    expected = {e.name: e for e in estimates(table(*crows(SIDES, GROUPS)), benchmark_of)}
    level = whole.levels["base"]
    assert (level.value, level.stderr, level.n) == (*(getattr(expected["crows_pairs.pct_stereotype"], x) for x in ("value", "stderr")), 300)
    assert group.levels["base"].value == expected["crows_pairs.pct_stereotype.age"].value and group.levels["base"].n == 150
    assert level.low is not None and level.high is not None and level.stderr is not None
    assert [level.low, level.high] == pytest.approx([level.value - 1.96 * level.stderr, level.value + 1.96 * level.stderr], abs=0.6)


def test_a_difference_is_paired_and_of_the_distance_from_neutral() -> None:
    worse = SIDES & (np.arange(300) % 30 != 0)  # ten items turn from stereotyped: farther below neutral
    (found,) = _compare([Slice("pct_stereotype")], base=SIDES, same=SIDES, worse=worse)
    assert found.differences["same", "base"] == Interval(0.0, 0.0, 0.0, 300)
    change = found.differences["worse", "base"]
    assert change.value == pytest.approx(100 * 10 / 300)
    assert change.low is not None and change.high is not None and 1 < change.low < change.value < change.high < 6
    (plain,) = _compare([Slice("likelihood_diff")], base=SIDES, worse=worse)
    assert plain.differences["worse", "base"].value == 0


def test_printed_units() -> None:
    assert Interval(0.5, None, 0.75, 4, 0.25).scaled(100) == Interval(50, None, 75, 4, 25)


def test_one_cluster_has_a_value_and_no_interval() -> None:
    items = {"base": items_of(table(*windows(np.array([-5.0]))), "perplexity")}
    (found,) = compared(items, [Slice("ppl")], [], alpha=0.025, draws=100, seed=0)
    assert found.levels["base"].low is found.levels["base"].high is None


def test_groups_of_single_clusters_have_a_mean_and_no_interval() -> None:
    """Resamples that hold every question are all alike: their spread would be zero."""
    options = {"Age": [0.0, -9.0, -9.0], "Religion": [-9.0, -9.0, 0.0], "SES": [-9.0, -9.0, 0.0]}

    def found(questions: int) -> Comparison:
        rows = [
            row("bbq_ll", f"{group} {i}", loglik, cluster=f"{group} {i % questions}", group=group, subgroup="ambig", gold=2)
            for group, loglik in options.items()
            for i in range(8)
        ]
        return compared({"base": items_of(table(*rows), "bbq_ll")}, [Slice("s_amb")], [], alpha=0.025, draws=400, seed=0)[0]

    single = found(1).levels["base"]
    assert single.value == pytest.approx(1 / 3) and single.low is single.high is None
    assert found(4).levels["base"].low == pytest.approx(1 / 3)


def test_a_subgroup_is_a_cell() -> None:
    rows = [one | {"subgroup": "stereo" if i < 6 else "antistereo"} for i, one in enumerate(crows(SIDES[:12], GROUPS))]
    turned = [one | {"option_loglik": [-2.0, -1.0]} for one in rows]
    items = {name: items_of(table(*part), "crows_pairs") for name, part in (("base", rows), ("q", turned))}
    cell = Slice("pct_stereotype", "gender", "antistereo")
    (found,) = compared(items, [cell], [("q", "base")], alpha=0.025, draws=100, seed=0)
    assert cell.label == "gender, antistereo" and found.levels["base"].n == 3
    assert found.levels["base"].value == pytest.approx(100 / 3) and found.levels["q"].value == 0


def test_draws_repeat_with_their_seed() -> None:
    noisy = flipped(SIDES, 0.2, np.random.default_rng(1))
    one, other = (_compare([Slice("pct_stereotype")], base=SIDES, q=noisy)[0] for _ in range(2))
    assert one == other
