"""Count the records of a raw file. The stages that use the records read them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fairgate.support.archives import read_texts
from fairgate.support.errors import BadRecord
from stages.fetch.manifest import Counter


def count_records(path: Path, how: Counter) -> int:
    """Number of records of one file.

    Records are non-blank lines, rows after the header (csv, tsv), or the entries of the lists at
    `how.at` (`.` is the whole file). A parquet file, which comes from the hub, has its rows counted
    whatever `how` says.

    Raises:
        BadRecord: not UTF-8, not the stated format, or no list where one is stated.
    """
    try:
        if path.suffix == ".parquet":
            return int(pq.ParquetFile(path).metadata.num_rows)
        if how.format == "rows":
            return sum(_rows(text) for name, text in read_texts(path) if name.endswith(".csv"))
        ((_, text),) = read_texts(path)
        if how.format == "json":
            data = json.loads(text)
            return sum(_length(data, at, path) for at in how.at)
        if how.format == "strings":
            return _strings(json.loads(text))
        if how.format == "csv":
            return max(_rows(text) - 1, 0)
        lines = sum(1 for line in io.StringIO(text, newline="") if line.strip())
        return max(lines - 1, 0) if how.format == "tsv" else lines
    except (ValueError, RecursionError, csv.Error) as error:
        raise BadRecord(f"not a {how.format} file in UTF-8 ({error})", where=str(path)) from None


def _rows(text: str) -> int:
    return sum(1 for row in csv.reader(io.StringIO(text, newline="")) if row)


def _length(data: Any, at: str, path: Path) -> int:
    for key in filter(None, at.split(".")):
        data = data.get(key) if isinstance(data, dict) else None
    if not isinstance(data, list):
        raise BadRecord(f"no list at {at!r}", where=str(path))
    return len(data)


def _strings(data: Any) -> int:
    parts = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return 1 if isinstance(data, str) else sum(map(_strings, parts))
