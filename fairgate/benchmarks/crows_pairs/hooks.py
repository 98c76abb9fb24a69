"""Dataset hook of CrowS-Pairs."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    as_test,
    identity,
    paths,
    read_csv,
    require_count,
)
from fairgate.benchmarks.families.results import prefers_first

__all__ = ["crows_pairs", "prefers_first"]


def crows_pairs(**metadata: Any) -> dict[str, Dataset]:
    """Sentence pairs; the subgroup is the direction (stereo, antistereo)."""
    (path,) = paths(metadata)
    lines = read_csv(path)
    require_count(lines, metadata, path)
    keep = ("sent_more", "sent_less")
    return as_test([identity(r[""], r[""], r["bias_type"], r["stereo_antistereo"]) | {k: r[k] for k in keep} for r in lines], metadata)
