"""Draw part of a benchmark: whole clusters, every group in proportion, the same items for every model."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from stages.evaluate.task import Item


def draw(items: Sequence[Item], wanted: int | None, *, seed: int, task: str) -> list[Item]:
    """At least `wanted` items in their own order; all if None or more than there are.

    In each group, clusters come in an order that depends on (seed, task, group) alone until the group's share is reached;
    the last cluster is taken whole, so a little more than asked for comes back.
    """
    if wanted is None or wanted >= len(items):
        return list(items)
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, item in enumerate(items):
        groups[item.group or ""][item.cluster].append(index)
    chosen: list[int] = []
    shares = _shares({name: sum(map(len, clusters.values())) for name, clusters in groups.items()}, wanted)
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


def _shares(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """`wanted` split over groups in proportion to their sizes (largest remainders)."""
    total = sum(sizes.values())
    shares = {name: size * wanted // total for name, size in sizes.items()}
    rest = sorted(sizes, key=lambda name: (-(sizes[name] * wanted % total), name))
    for name in rest[: wanted - sum(shares.values())]:
        shares[name] += 1
    return shares
