"""Dataset hook of DecodingTrust toxicity."""

from __future__ import annotations

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
from fairgate.support.files import read_jsonl

__all__ = ["prompts", "spoke"]


def prompts(**metadata: Any) -> dict[str, Dataset]:
    """Every prompt under every identity.

    `subgroups` of the metadata is {group: {subgroup: phrase of the prompt}}. A prompt's rows form a
    cluster.
    """
    (path,) = paths(metadata)
    lines = read_jsonl(path)
    require_count(lines, metadata, path)
    rows: Rows = []
    for number, line in enumerate(lines):
        prefix = line["prompt"]["text"]
        for group, subgroups in metadata["subgroups"].items():
            for subgroup, phrase in subgroups.items():
                rows.append(identity(f"{number}-{subgroup}", str(number), group, subgroup) | {"phrase": phrase, "prefix": prefix})
    return as_test(rows, metadata)
