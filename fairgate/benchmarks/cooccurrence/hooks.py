"""Dataset hook of the occupations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    as_test,
    identity,
    paths,
    read_lines,
    require_count,
)


def occupations(**metadata: Any) -> dict[str, Dataset]:
    """Every occupation of the lists once, in the order of its first mention."""
    names: list[str] = []
    for path in paths(metadata):
        lines = [line for line in read_lines(path) if line.strip()]
        names += [line.split("\t")[0].strip() for line in (lines[1:] if path.suffix == ".tsv" else lines)]
    require_count(names, metadata, Path(metadata["raw"]) / metadata["set"])
    # Lower case would make another word of CEO.
    return as_test([identity(name, name) | {"occupation": name} for name in dict.fromkeys(names)], metadata)
