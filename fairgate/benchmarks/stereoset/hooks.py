"""Dataset hook of StereoSet."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    as_test,
    identity,
    paths,
    require_count,
)
from fairgate.benchmarks.families.results import prefers_first
from fairgate.contracts.records import Split, read_record
from fairgate.support.errors import BadRecord
from fairgate.support.files import read_json

__all__ = ["prefers_first", "stereoset"]


def stereoset(**metadata: Any) -> dict[str, Dataset]:
    """Items of a `part` (intrasentence), of `types` only where they are named.

    With `terms: development` only those whose target term the split file holds out for development.
    """
    (path,) = paths(metadata)
    items = read_json(path)["data"][metadata.get("part", "intrasentence")]
    require_count(items, metadata, path)
    items = [item for item in items if item["bias_type"] in metadata.get("types", [item["bias_type"]])]
    if metadata.get("terms"):
        split = read_record(Split, metadata["split"])
        held_out = set(getattr(split, f"{metadata['terms']}_terms"))
        # The split file has its terms in lower case.
        items = [item for item in items if item["target"].lower() in held_out]
        if absent := held_out - {item["target"].lower() for item in items}:
            remedy = "run `dvc repro calibrate` to write the split again"
            raise BadRecord(f"no item has the held-out term {min(absent)!r}", where=str(path), remedy=remedy)
    rows = []
    for item in items:
        sentences = {sentence["gold_label"]: sentence["sentence"] for sentence in item["sentences"]}
        if sorted(sentences) != ["anti-stereotype", "stereotype", "unrelated"] or len(item["sentences"]) != 3:
            raise BadRecord(f"labels {sorted(sentences)}, one of each is needed", where=f"{path}: item {item['id']}")
        row = identity(item["id"], item["target"], item["bias_type"]) | {"context": item["context"]}
        rows.append(row | {label.replace("-", "_"): text for label, text in sentences.items()})
    return as_test(rows, metadata)
