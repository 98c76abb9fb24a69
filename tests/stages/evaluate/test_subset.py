from __future__ import annotations

from collections import Counter

from stages.evaluate.subset import draw
from stages.evaluate.task import Item


def items() -> list[Item]:
    """Two groups of 60 and 30 items, three items a cluster."""
    return [Item(str(n), f"c{n // 3}", "big" if n < 60 else "small", None, None, (("", str(n)),), (1,)) for n in range(90)]


def test_whole_clusters_and_groups_in_proportion() -> None:
    chosen = draw(items(), 30, seed=0, task="b")
    clusters = Counter(item.cluster for item in chosen)
    assert set(clusters.values()) == {3}
    assert Counter(item.group for item in chosen) == {"big": 21, "small": 12}


def test_the_draw_depends_on_seed_and_benchmark_alone() -> None:
    names = [item.id for item in draw(items(), 30, seed=0, task="b")]
    assert names == [item.id for item in draw(items(), 30, seed=0, task="b")]
    assert names != [item.id for item in draw(items(), 30, seed=1, task="b")]
    assert names != [item.id for item in draw(items(), 30, seed=0, task="c")]
    assert names == sorted(names, key=int)


def test_items_without_groups_give_the_number_exactly() -> None:
    plain = [Item(str(n), str(n), None, None, None, (("", "x"),), (1,)) for n in range(50)]
    assert len(draw(plain, 17, seed=0, task="b")) == 17
    assert len(draw(plain, None, seed=0, task="b")) == len(draw(plain, 99, seed=0, task="b")) == 50
