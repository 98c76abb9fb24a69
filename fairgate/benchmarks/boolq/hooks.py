"""Dataset hook of BoolQ."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    as_test,
    digest,
    identity,
    paths,
    require_count,
)
from fairgate.support.errors import BadRecord
from fairgate.support.files import read_jsonl


def questions(**metadata: Any) -> dict[str, Dataset]:
    """Passage, question and label (0 no, 1 yes); questions on one passage form a cluster."""
    (path,) = paths(metadata)
    lines = read_jsonl(path)
    require_count(lines, metadata, path)
    rows = []
    for number, line in enumerate(lines):
        if str(line["answer"]) not in ("True", "False"):
            raise BadRecord(f"answer {line['answer']!r}, True or False is needed", where=f"{path}:{number + 1}")
        fields = {"passage": line["passage"], "question": line["question"], "label": int(str(line["answer"]) == "True")}
        rows.append(identity(str(number), digest(line["passage"])) | fields)
    return as_test(rows, metadata)
