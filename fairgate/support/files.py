"""Files that are either whole or absent: everything is written beside its target and renamed."""

from __future__ import annotations

import bz2
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fairgate.support.errors import BadRecord, FairgateError, MissingFile


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it replaces `path`, on any error it is removed."""
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
    """Yield an empty folder beside `path`; on success it becomes `path` (an older one is replaced), else it is removed.

    One writer at a time: what a killed one left beside `path` is removed first.
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


def require_space(folder: Path | str, needed_bytes: int, *, what: str) -> None:
    """Raise FairgateError unless the disk that holds `folder` has `needed_bytes` free."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise FairgateError(
            f"no disk space for {what}: {needed_bytes / 2**20:,.0f} MiB needed, {free / 2**20:,.0f} MiB free",
            where=str(folder),
            remedy="free some space (`dvc gc -w` drops cached outputs that no commit here uses) or move the project to another disk",
        )


def require_whole_weights(folder: Path, *, remedy: str) -> None:
    """Raise BadRecord if a safetensors file in `folder` is cut short or damaged in its header; no weight is read."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            raise BadRecord(f"not a whole safetensors file ({error})", where=str(path), remedy=remedy) from None


def write_json(path: Path | str, data: Any) -> None:
    """Write JSON with sorted keys, two spaces and a final newline; NaN and infinity are refused (ValueError)."""
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path | str, *, written_by: str = "") -> Any:
    """Read a JSON file; MissingFile or BadRecord name the stage that writes it."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile("no such file", where=str(path), remedy=_run(written_by))
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadRecord(f"not valid JSON ({error})", where=str(path), remedy=_run(written_by)) from None


def write_jsonl(path: Path | str, rows: Iterable[Any]) -> int:
    """Write one JSON object a line; returns the number of lines."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_jsonl(path: Path | str, *, written_by: str = "") -> list[Any]:
    """Read one JSON object a line; an error names the line."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile("no such file", where=str(path), remedy=_run(written_by))
    rows = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise BadRecord(f"not valid JSON ({error})", where=f"{path}:{number}", remedy=_run(written_by)) from None
    return rows


def read_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Name and text of a file in UTF-8; of a `.bz2` what is in it, of a `.tar.gz` every file in it."""
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if (file := archive.extractfile(member)) is not None:
                    yield member.name, file.read().decode("utf-8")
    elif path.suffix == ".bz2":
        yield path.stem, bz2.decompress(path.read_bytes()).decode("utf-8")
    else:
        yield path.name, path.read_bytes().decode("utf-8")


def _run(stage: str) -> str:
    return f"run `dvc repro {stage}` to write it again" if stage else ""
