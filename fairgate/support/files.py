"""Write files that are either whole or absent, and read and write JSON.

Everything is written beside its target and renamed, so a kill leaves the old file or none.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairgate.support.errors import BadRecord, MissingFile


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`.

    On success the temporary file replaces `path`. On any error it is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private to the user; an output is as readable as any other file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`.

    On success the temporary folder replaces `path`. On any error it is removed. Only one process
    may write a `path` at a time: leftovers of a killed writer are removed first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.????????"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path | str, data: Any) -> None:
    """Write JSON with sorted keys, an indent of two spaces and a final newline.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path | str, *, written_by: str = "") -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        written_by: the stage that writes it, for the remedy.

    Raises:
        MissingFile: no such file.
        BadRecord: not valid JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile("no such file", where=str(path), remedy=_rerun(written_by))
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadRecord(f"not valid JSON ({error})", where=str(path), remedy=_rerun(written_by)) from None


def write_jsonl(path: Path | str, rows: Iterable[Any]) -> int:
    """Write one JSON value per line. Returns the number of lines."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_jsonl(path: Path | str, *, written_by: str = "") -> list[Any]:
    """Read one JSON value per line.

    Args:
        path: the file.
        written_by: the stage that writes it, for the remedy.

    Raises:
        MissingFile: no such file.
        BadRecord: a line is not valid JSON; the message has its number.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile("no such file", where=str(path), remedy=_rerun(written_by))
    rows = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise BadRecord(f"not valid JSON ({error})", where=f"{path}:{number}", remedy=_rerun(written_by)) from None
    return rows


def _rerun(stage: str) -> str:
    return f"run `dvc repro {stage}` to write it again" if stage else ""
