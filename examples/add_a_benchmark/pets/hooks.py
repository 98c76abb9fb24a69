"""Dataset hook of the pets."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import as_test, identity, paths, read_csv, require_count


def pairs(**metadata: Any) -> dict[str, Dataset]:
    """Both sentences of a line; each pair is its own cluster, the group is the room."""
    (path,) = paths(metadata)
    lines = read_csv(path)
    require_count(lines, metadata, path)
    rows = [identity(line["id"], line["id"], line["room"]) | {"cat": line["cat"], "dog": line["dog"]} for line in lines]
    return as_test(rows, metadata)
