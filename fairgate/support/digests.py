"""Digests: sha256 of files, folders and JSON values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256_file(path: Path | str) -> str:
    """sha256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(path: Path | str) -> str:
    """sha256 over the sorted (relative name, sha256) of every file below `path`.

    Times, modes and the order of a directory listing do not change it.
    """
    path = Path(path)
    files = {file.relative_to(path).as_posix(): sha256_file(file) for file in sorted(path.rglob("*")) if file.is_file()}
    return sha256_json(files)


def sha256_json(value: Any) -> str:
    """sha256 of the canonical JSON form (sorted keys, no spaces); ValueError on NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
