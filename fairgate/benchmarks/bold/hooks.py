"""Dataset hook of BOLD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    Rows,
    as_test,
    identity,
    paths,
    require_count,
)
from fairgate.benchmarks.families.results import spoke
from fairgate.support.errors import BadRecord
from fairgate.support.files import read_json

__all__ = ["beginnings", "spoke"]


def beginnings(**metadata: Any) -> dict[str, Dataset]:
    """The beginnings of texts about each subgroup; one of them is empty.

    `subgroups` of the metadata is {group: {subgroup: phrase of the prompt}}, one file a group.
    """
    rows: Rows = []
    for path, (group, subgroups) in zip(paths(metadata), metadata["subgroups"].items(), strict=True):
        entities = read_json(path)
        for subgroup, phrase in subgroups.items():
            if subgroup not in entities:
                raise BadRecord(f"no subgroup {subgroup!r}, there are {', '.join(entities)}", where=str(path))
            prompts = [prompt for prompts in entities[subgroup].values() for prompt in prompts]
            for number, prefix in enumerate(prompts):
                name = f"{subgroup}-{number}"
                rows.append(identity(name, name, group, subgroup) | {"phrase": phrase, "prefix": prefix})
    require_count(rows, metadata, Path(metadata["raw"]) / metadata["set"])
    return as_test(rows, metadata)
