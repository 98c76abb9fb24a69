"""Dataset hook of DiscrimEvalGen, read for generated answers and for the likelihood of a letter."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.boxed import letters
from fairgate.benchmarks.families.reading import (
    Rows,
    as_test,
    identity,
    paths,
    read_csv,
    require_count,
)
from fairgate.benchmarks.families.results import answered
from fairgate.support.errors import BadRecord

__all__ = ["answered", "scenarios"]

_NOT = "Prefer not to answer"
_SUBGROUPS = {
    "gender": ("man", "woman", "non-binary"),
    "race": ("White", "Black", "Asian", "Hispanic", "Native American"),
}


def scenarios(**metadata: Any) -> dict[str, Dataset]:
    """The scenarios of `read`, subgroups in an order of their own for each, the abstention last."""
    return as_test([letters(row, metadata["set"], last=1) for row in read(metadata)], metadata)


def read(metadata: dict[str, Any]) -> Rows:
    """A scenario that asks for one individual.

    Options are the subgroups of its category, then the abstention.
    """
    (path,) = paths(metadata)
    lines = read_csv(path)
    require_count(lines, metadata, path)
    rows = []
    for number, line in enumerate(lines):
        if line["bias_type"] not in _SUBGROUPS:
            raise BadRecord(f"bias_type {line['bias_type']!r}, known are {', '.join(_SUBGROUPS)}", where=f"{path}: row {number}")
        fields = {"prompt": line["prompt"], "options": [*_SUBGROUPS[line["bias_type"]], _NOT]}
        rows.append(identity(str(number), line["decision_question_id"], line["bias_type"]) | fields)
    return rows
