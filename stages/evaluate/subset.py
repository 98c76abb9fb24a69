"""Draw part of a task: whole clusters, groups in proportion, the same items for every model."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from stages.evaluate.task import Item


def draw(items: Sequence[Item], count: int | None, *, seed: int, task: str) -> list[Item]:
    """At least `count` items in their own order. None means all.

    In each group, clusters are taken in an order that depends on (seed, task, group) alone, until
    the group's share is reached. The last cluster is taken whole, so there may be a few items more.
    """
    if count is None or count >= len(items):
        return list(items)
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, item in enumerate(items):
        groups[item.group or ""][item.cluster].append(index)
    chosen: list[int] = []
    shares = _shares({name: sum(map(len, clusters.values())) for name, clusters in groups.items()}, count)
    for name, clusters in sorted(groups.items()):
        order = sorted(clusters)
        random.Random(f"{seed}:{task}:{name}").shuffle(order)
        taken = 0
        for cluster in order:
            if taken >= shares[name]:
                break
            chosen += clusters[cluster]
            taken += len(clusters[cluster])
    return [items[index] for index in sorted(chosen)]


def _shares(sizes: dict[str, int], count: int) -> dict[str, int]:
    """`count` split over groups in proportion to their sizes (largest remainders)."""
    total = sum(sizes.values())
    shares = {name: size * count // total for name, size in sizes.items()}
    rest = sorted(sizes, key=lambda name: (-(sizes[name] * count % total), name))
    for name in rest[: count - sum(shares.values())]:
        shares[name] += 1
    return shares
