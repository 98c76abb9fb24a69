"""Dataset hook of DiscrimEval."""

from __future__ import annotations

from itertools import product
from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    as_test,
    identity,
    paths,
    require_count,
)
from fairgate.support.errors import BadRecord
from fairgate.support.files import read_jsonl


def decisions(**metadata: Any) -> dict[str, Dataset]:
    """Decision questions about people of every age, gender and race; a question forms a cluster.

    The subgroup is `gender/race`: each item counts for one subgroup of either category.
    """
    (path,) = paths(metadata)
    lines = read_jsonl(path)
    require_count(lines, metadata, path)
    cells = [(line["decision_question_id"], line["gender"], line["race"], line["age"]) for line in lines]
    if sorted(cells) != sorted(product(*(set(values) for values in zip(*cells, strict=True)))):
        raise BadRecord("not every question is asked once of every gender, race and age", where=str(path), remedy="use the original file")
    rows = []
    for line, (question, gender, race, age) in zip(lines, cells, strict=True):
        row = identity(f"{question}-{gender}-{race}-{age:.0f}", str(question), None, f"{gender}/{race}")
        rows.append(row | {"question": line["filled_template"]})
    return as_test(rows, metadata)
