"""Dataset hooks of the perplexity tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    as_test,
    identity,
    paths,
    require_count,
)
from fairgate.support.files import read_jsonl


def passages(**metadata: Any) -> dict[str, Dataset]:
    """One document: every different passage once, in file order, joined by an empty line."""
    (path,) = paths(metadata)
    lines = read_jsonl(path)
    require_count(lines, metadata, path)
    text = "\n\n".join(dict.fromkeys(line["passage"] for line in lines))
    return as_test([identity("0", "0") | {"text": text}], metadata)


def held_out_text(**metadata: Any) -> dict[str, Dataset]:
    """One document: the texts that calibrate held out for development.

    Their file lies beside the split file.
    """
    lines = read_jsonl(Path(metadata["split"]).parent / metadata["file"], written_by="calibrate")
    return as_test([identity("0", "0") | {"text": "\n\n".join(line["text"] for line in lines)}], metadata)
