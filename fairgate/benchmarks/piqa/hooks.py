"""Dataset hooks of PIQA."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.options import lettered
from fairgate.benchmarks.families.reading import (
    as_test,
    given,
    identity,
    index_of,
    read_lines,
    read_rows,
    require_count,
)
from fairgate.support.errors import BadRecord

__all__ = ["lettered", "solutions"]


def solutions(**metadata: Any) -> dict[str, Dataset]:
    """Goal, two solutions and label."""
    files, hub = given(metadata)
    lines = read_rows(files[0])
    require_count(lines, metadata, files[0])
    labels = [str(line["label"]) for line in lines] if hub else [line for line in read_lines(files[1]) if line]
    if len(labels) != len(lines):
        raise BadRecord(f"{len(labels)} labels for {len(lines)} questions", where=str(files[-1]), remedy="use the original files")
    rows = []
    for number, (line, label) in enumerate(zip(lines, labels, strict=True)):
        fields = {
            "goal": line["goal"],
            "options": [line["sol1"], line["sol2"]],
            "label": index_of(label, ["0", "1"], f"{files[-1]}:{number + 1}"),
        }
        rows.append(identity(str(number), str(number)) | fields)
    return as_test(rows, metadata)
