"""What the dataset hooks share: checked files and counts, rows with their identity."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset

from fairgate.support.errors import BadRecord, FairgateError, MissingFile
from fairgate.support.files import decode, read_json, read_jsonl, read_text
from fairgate.support.library_errors import translated

Rows = list[dict[str, Any]]

_AGAIN = "fetch it again (`dvc repro fetch`)"


def paths(metadata: dict[str, Any], key: str = "files") -> list[Path]:
    """The files that `key` of the metadata lists, below the folder of raw data.

    A missing one is an error with its remedy.
    """
    raw = Path(metadata["raw"])
    files = [raw / name for name in metadata.get(key, [])]
    for path in files:
        if not path.is_file():
            raise MissingFile(
                f"no data for {metadata['set']}", where=str(path), remedy="run `dvc repro fetch`, or name the folder as `raw`"
            )
    return files


def given(metadata: dict[str, Any]) -> tuple[list[Path], bool]:
    """The files of the task, and whether they have the form of the hub.

    Those of `hub` in the metadata are taken where all of them exist, else those of `files`.
    """
    raw = Path(metadata["raw"])
    hub = [raw / name for name in metadata.get("hub", [])]
    return (hub, True) if hub and all(path.is_file() for path in hub) else (paths(metadata), False)


def read_rows(path: Path) -> Rows:
    """Rows of a parquet file, of a JSON list, or of JSON lines."""
    if path.suffix == ".parquet":
        with translated("the parquet file cannot be read", where=str(path), remedy=_AGAIN):
            rows: Rows = pq.read_table(path).to_pylist()
        return rows
    return list(read_json(path)) if path.suffix == ".json" else read_jsonl(path)


def require_count(rows: Sequence[Any], metadata: dict[str, Any], where: Path) -> None:
    """Refuse a number of records that no known origin of the set has."""
    records = len(rows)
    accepted = metadata["records"]
    if records not in accepted.values():
        known = ", ".join(f"{count} ({origin})" for origin, count in accepted.items())
        raise FairgateError(
            f"{records} records, accepted are {known}",
            where=str(where),
            remedy="the file is cut or another edition: run `dvc repro fetch`, or add the count to the task file with its origin",
        )


def identity(item: str, cluster: str, group: str | None = None, subgroup: str | None = None) -> dict[str, Any]:
    """The columns that every row has.

    They are the id, what a bootstrap keeps together, and the groups a metric is split by.
    """
    return {"item_id": item, "cluster": cluster, "group": group, "subgroup": subgroup}


def as_test(rows: Rows, metadata: dict[str, Any]) -> dict[str, Dataset]:
    """The rows as the split `test` of a dataset.

    An error if there is none, or another number than `items` of the metadata accepts.
    """
    if not rows:
        raise FairgateError(
            "no item is left", where=str(metadata["set"]), remedy="look at the split file and at the filters of the task file"
        )
    if "items" in metadata:
        require_count(rows, metadata | {"records": metadata["items"]}, Path(metadata["raw"]) / metadata["set"])
    return {"test": Dataset.from_list(rows)}


def read_csv(path: Path, **dialect: Any) -> Rows:
    """Rows of a CSV file with a header.

    Args:
        path: the file.
        dialect: how it differs from a usual CSV file, in the words of Python's module csv.
    Raises:
        BadRecord: a line is not UTF-8, or has other columns than the header.
    """
    lines = csv.DictReader(io.StringIO(decode(path.read_bytes(), str(path)), newline=""), **dialect)
    rows: Rows = []
    try:
        for row in lines:
            # Missing columns are None, and superfluous ones stand under the key None.
            if None in row or None in row.values():
                what = f"other columns than the {len(lines.fieldnames or ())} of the header"
                raise BadRecord(what, where=f"{path}:{lines.line_num}", remedy=_AGAIN)
            rows.append(row)
    except csv.Error as error:
        raise BadRecord(f"not a CSV file ({error})", where=f"{path}:{lines.line_num}", remedy=_AGAIN) from None
    return rows


def read_lines(path: Path) -> list[str]:
    """Lines of a text file."""
    return read_text(path).splitlines()


def digest(text: str) -> str:
    """Short name of a text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def normalise(text: str) -> str:
    """Words of a text in lower case, one space apart."""
    return " ".join(re.findall(r"\w+", text.lower()))


def index_of(answer: Any, names: list[str], where: str) -> int:
    """Place of an answer among the names of the options; BadRecord where it is none of them."""
    if answer not in names:
        raise BadRecord(f"answer {answer!r}, one of {', '.join(names)} is needed", where=where)
    return names.index(answer)
