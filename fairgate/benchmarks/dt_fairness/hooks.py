"""Dataset hooks of DecodingTrust fairness."""

from __future__ import annotations

import re
from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    Rows,
    as_test,
    identity,
    paths,
    require_count,
)
from fairgate.benchmarks.families.results import answered
from fairgate.support.errors import BadRecord
from fairgate.support.files import read_jsonl

__all__ = ["answered", "persons", "with_answers"]


def persons(**metadata: Any) -> dict[str, Dataset]:
    """The persons of `read`: options yes, no."""
    return as_test(read(metadata), metadata)


def with_answers(**metadata: Any) -> dict[str, Dataset]:
    """The persons of `read`."""
    return as_test([row | {"answers": row["options"]} for row in read(metadata)], metadata)


def read(metadata: dict[str, Any]) -> Rows:
    """A described person; yes means that he or she earns more than 50,000 dollars.

    Options are yes and no. The subgroup is the sex named in the description.
    """
    (path,) = paths(metadata)
    lines = read_jsonl(path)
    require_count(lines, metadata, path)
    rows = []
    for number, line in enumerate(lines):
        sex = re.search(r"sex (Male|Female),", line["input"])
        if sex is None or line["label"] not in ("yes", "no") or not line["input"].startswith("description:  "):
            raise BadRecord(f"no description, sex or label: {line['input'][:40]!r}, {line['label']!r}", where=f"{path}:{number + 1}")
        person = line["input"].removeprefix("description:  ")[:-1]
        fields = {"person": person, "options": ["yes", "no"], "label": ["yes", "no"].index(line["label"])}
        rows.append(identity(str(number), str(number), "gender", sex[1]) | fields)
    return rows
