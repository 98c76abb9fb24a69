"""Dataset hooks of RedditBias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    Rows,
    as_test,
    digest,
    identity,
    normalise,
    paths,
    read_csv,
    require_count,
)
from fairgate.benchmarks.families.results import prefers_first

__all__ = ["pairs", "prefers_first", "validation_pairs"]


def pairs(**metadata: Any) -> dict[str, Dataset]:
    """Comment about the target group and its copy with the group word swapped.

    A repeated comment forms one cluster.
    """
    rows: Rows = []
    for path, group in zip(paths(metadata), metadata["groups"], strict=True):
        for number, line in enumerate(read_csv(path)):
            row = identity(f"{group}-{number}", digest(normalise(line["comments"])), group.split("-")[0], group)
            rows.append(row | {"target": line["comments"], "swapped": line["comments_processed"]})
    require_count(rows, metadata, Path(metadata["raw"]) / metadata["set"])
    return as_test(rows, metadata)


def validation_pairs(**metadata: Any) -> dict[str, Dataset]:
    """Comment about the target group and its copy with the group word swapped.

    Comments in the files of `without` are left out.
    """
    known = {
        normalise(row[side]) for path in paths(metadata, "without") for row in read_csv(path) for side in ("comments", "comments_processed")
    }
    rows: Rows = []
    total: Rows = []
    for path, group in zip(paths(metadata), metadata["groups"], strict=True):
        for number, line in enumerate(read_csv(path)):
            total.append(line)
            target, swapped = line["comments"], line["comments_processed"]
            if normalise(target) in known or normalise(swapped) in known or target == swapped:
                continue
            item = f"{group}-{number}"
            rows.append(identity(item, item, group.split("-")[0], group) | {"target": target, "swapped": swapped})
    require_count(total, metadata, Path(metadata["raw"]) / metadata["set"])
    return as_test(rows, metadata)
