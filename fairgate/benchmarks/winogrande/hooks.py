"""Dataset hook of WinoGrande."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.options import each_record, inline
from fairgate.benchmarks.families.reading import (
    index_of,
)
from fairgate.support.errors import BadRecord


def blanks(**metadata: Any) -> dict[str, Dataset]:
    """The sentence up to its blank with either option in it, and what follows the blank.

    Only what follows is scored.
    """

    def fields(line: dict[str, Any], hub: bool, where: str) -> dict[str, Any]:
        if hub:
            sentence, options = line["sentence"], [line["option1"], line["option2"]]
            label = index_of(line["answer"], ["1", "2"], where)
        else:
            sentence, options, label = inline(line, where)
        before, blank, after = sentence.partition("_")
        if not blank or len(options) != 2:
            raise BadRecord(
                f"{len(options)} options for the sentence {sentence!r}", where=where, remedy="a blank and two options are needed"
            )
        return {"contexts": [before + option for option in options], "ending": after.strip(), "label": label}

    return each_record(metadata, fields)
