"""Dataset hook of ARC."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.options import each_record, inline
from fairgate.benchmarks.families.reading import (
    index_of,
)


def questions(**metadata: Any) -> dict[str, Dataset]:
    """Question, options (three to five) and label."""

    def fields(line: dict[str, Any], hub: bool, where: str) -> dict[str, Any]:
        if hub:
            question, options = line["question"], list(line["choices"]["text"])
            label = index_of(line["answerKey"], list(line["choices"]["label"]), where)
        else:
            question, options, label = inline(line, where)
        return {"question": question, "options": options, "label": label}

    return each_record(metadata, fields)
