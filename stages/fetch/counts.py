"""Count the records of a raw file; reading them is the business of the stages that use them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from stages.common.errors import BadRecord
from stages.fetch.manifest import Counter


def count(path: Path, how: Counter) -> int:
    """Number of records: non-blank lines, rows after the header, or entries of the lists at `how.at`.

    Raises:
        BadRecord: not UTF-8, not the stated format, or no list where one is stated.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if how.format == "json":
                data = json.load(file)
                return sum(_length(data, at, path) for at in how.at)
            if how.format == "csv":
                return max(sum(1 for row in csv.reader(file) if row) - 1, 0)
            lines = sum(1 for line in file if line.strip())
            return max(lines - 1, 0) if how.format == "tsv" else lines
    except ValueError as error:
        raise BadRecord(f"not a {how.format} file in UTF-8 ({error})", where=str(path)) from None


def _length(data: Any, at: str, path: Path) -> int:
    for key in at.split("."):
        data = data.get(key) if isinstance(data, dict) else None
    if not isinstance(data, list):
        raise BadRecord(f"no list at {at!r}", where=str(path))
    return len(data)
