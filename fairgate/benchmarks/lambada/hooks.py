"""Dataset hook of LAMBADA."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.options import each_record
from fairgate.benchmarks.families.reading import (
    digest,
)
from fairgate.support.errors import BadRecord


def passages(**metadata: Any) -> dict[str, Dataset]:
    """All but the last word, and the last word with the space before it.

    A repeated passage forms one cluster.
    """

    def fields(line: dict[str, Any], hub: bool, where: str) -> dict[str, Any]:
        passage, space, word = line["text"].rpartition(" ")
        if not passage or not word:
            raise BadRecord("no last word", where=where, remedy="use the original file")
        # The first of the two options in the item table, the word itself, is the right one.
        return {"cluster": digest(line["text"]), "passage": passage, "word": space + word, "label": 0}

    return each_record(metadata, fields)
