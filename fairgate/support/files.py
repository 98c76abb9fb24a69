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
        BadRecord: not UTF-8 or not valid JSON.
    """
    return parse_json(read_text(path, written_by=written_by), str(path), written_by=written_by)


def read_text(path: Path | str, *, written_by: str = "") -> str:
    """Read a text file in UTF-8, every line end as a line feed.

    Args:
        path: the file.
        written_by: the stage that writes it, for the remedy.

    Raises:
        MissingFile: no such file.
        BadRecord: not UTF-8; the message has the line.
    """
    return _read(path, written_by).replace("\r\n", "\n").replace("\r", "\n")


def decode(data: bytes, where: str, *, written_by: str = "") -> str:
    """The text of a file, without a byte order mark.

    Args:
        data: what the file holds.
        where: its name, for the error.
        written_by: the stage that writes it, for the remedy.

    Raises:
        BadRecord: not UTF-8; the message has the line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8 (byte 0x{data[error.start]:02x})"
        raise BadRecord(what, where=f"{where}:{line}", remedy=_rerun(written_by) or "save the file as UTF-8, or fetch it again") from None


def parse_json(text: str, where: str, *, written_by: str = "") -> Any:
    """The value of a JSON text.

    Args:
        text: one JSON value.
        where: file, and line if it is one of several, for the error.
        written_by: the stage that writes it, for the remedy.

    Raises:
        BadRecord: not valid JSON, or a string in it is no text.
    """
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # half of a surrogate pair can be escaped, but not written or tokenized
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"not valid JSON ({error})", where=where, remedy=_rerun(written_by)) from None
    return value


@contextmanager
def records_of(what: str, where: str) -> Iterator[None]:
    """Turn what a record of another form makes the code inside raise into an error that names it.

    Args:
        what: whose records are read, e.g. a task.
        where: the file or files.

    Raises:
        BadRecord: a key, a column or a list of another form than the code expects.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        form = f"a record of another form ({type(error).__name__}: {error})"
        raise BadRecord(f"{what} has {form}", where=where, remedy="fetch it again (`dvc repro fetch`)") from error


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
        BadRecord: a line is not UTF-8 or not valid JSON; the message has its number.
    """
    text = _read(path, written_by)
    # Not `splitlines`: JSON strings may hold other separators of lines.
    lines = text.removesuffix("\n").split("\n") if text else []
    return [parse_json(line, f"{path}:{number}", written_by=written_by) for number, line in enumerate(lines, 1)]


def _read(path: Path | str, written_by: str) -> str:
    if not Path(path).is_file():
        raise MissingFile("no such file", where=str(path), remedy=_rerun(written_by))
    return decode(Path(path).read_bytes(), str(path), written_by=written_by)


def _rerun(stage: str) -> str:
    return f"run `dvc repro {stage}` to write it again" if stage else ""
