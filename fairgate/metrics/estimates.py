"""From an item table to numbers: every metric of every benchmark with its standard error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fairgate.metrics.benchmark import Benchmark
from fairgate.metrics.items import EVALUATE, benchmarks_of
from fairgate.support.errors import BadRecord

Definitions = Callable[[str], Benchmark]  # the name in the item table -> how its items are scored


@dataclass(frozen=True)
class Estimate:
    """One number with what it rests on.

    `group` and `subgroup` are None for all; `stderr` is None below two clusters.
    """

    metric: str
    group: str | None
    subgroup: str | None
    value: float
    stderr: float | None
    items: int
    clusters: int

    @property
    def name(self) -> str:
        return self.metric + (f".{self.group}" if self.group else "") + (f"/{self.subgroup}" if self.subgroup else "")


def estimates(table: pa.Table, definitions: Definitions, benchmarks: Sequence[str] | None = None) -> list[Estimate]:
    """Every metric of every benchmark of one model: overall, per group, and per subgroup.

    Subgroups are taken over all groups; a gap between subgroups has no value in one of them. What
    the items do not define is left out: a gap between two sexes of which one never answered.

    Raises:
        BadRecord: an infinite value, or an item that breaks the contract.
    """
    out = []
    for name in benchmarks if benchmarks is not None else benchmarks_of(table):
        definition = definitions(name)
        items = definition.items(table, name)
        parts = [(None, None), *((group, None) for group in items.groups), *((None, subgroup) for subgroup in items.subgroups())]
        for key, statistic in definition.statistics.items():
            for group, subgroup in parts if statistic.divisible else parts[: 1 + len(items.groups)]:
                part = statistic.components(items, group=group, subgroup=subgroup)
                estimate = Estimate(f"{name}.{key}", group, subgroup, part.value, part.stderr, part.items, part.clusters)
                if np.isinf(estimate.value):
                    raise BadRecord(f"value {estimate.value} is not finite ({part.items} items)", where=estimate.name, remedy=EVALUATE)
                if not np.isnan(estimate.value):
                    out.append(estimate)
    return out


def metrics_of(table: pa.Table, definitions: Definitions) -> dict[str, float]:
    """Values by name: `stereoset.ss`, `stereoset.ss.race`, `crows_pairs.pct_stereotype/stereo`.

    `<name>.stderr` is there from two clusters on.
    """
    flat: dict[str, float] = {}
    for estimate in estimates(table, definitions):
        flat[estimate.name] = estimate.value
        if estimate.stderr is not None:
            flat[f"{estimate.name}.stderr"] = estimate.stderr
    return flat


def derive(table: pa.Table, definitions: Definitions) -> pa.Table:
    """The table with `answer`, `correct`, `biased` and `entropy` filled; rows keep their order.

    They follow from the log-likelihoods, or from the answer that was read out of a text.
    """
    derived: dict[tuple[str, str], tuple[Any, Any, Any, Any]] = {}
    for name in benchmarks_of(table):
        items = definitions(name).items(table, name)
        empty = [None] * len(items.ids)
        answer = empty if items.answer is None else items.answer.tolist()
        biased = empty if items.biased is None else items.biased.tolist()
        correct = empty if items.gold is None or items.answer is None else (items.answer == items.gold).tolist()
        if items.given is not None:  # an item without an answer is neither right nor wrong
            biased, correct = ([value if a >= 0 else None for value, a in zip(x, items.given, strict=True)] for x in (biased, correct))
        entropy = empty if items.entropy is None else items.entropy.tolist()
        rows = zip(answer, correct, biased, entropy, strict=True)
        derived.update({(name, item): row for item, row in zip(items.ids, rows, strict=True)})
    keys = zip(table["benchmark"].to_pylist(), table["item_id"].to_pylist(), strict=True)
    columns = list(zip(*(derived[key] for key in keys), strict=True))
    for column, values in zip(("answer", "correct", "biased", "entropy"), columns, strict=True):
        index = table.schema.get_field_index(column)
        table = table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))
    return table
