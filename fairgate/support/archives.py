"""Read texts out of plain and compressed files."""

from __future__ import annotations

import bz2
import tarfile
from collections.abc import Iterator
from pathlib import Path

from fairgate.support.files import decode
from fairgate.support.library_errors import translated

_AGAIN = "fetch it again (`dvc repro fetch`)"


def read_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of a UTF-8 file.

    A `.bz2` yields its content under the name without the suffix. A `.tar.gz` yields every file
    in it.

    Raises:
        FairgateError: the archive is broken, or a text in it is not UTF-8.
    """
    if path.name.endswith(".tar.gz"):
        with translated("the archive cannot be read", where=str(path), remedy=_AGAIN), tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if (file := archive.extractfile(member)) is not None:
                    yield member.name, decode(file.read(), f"{path}: {member.name}")
    elif path.suffix == ".bz2":
        with translated("the archive cannot be read", where=str(path), remedy=_AGAIN):
            data = bz2.decompress(path.read_bytes())
        yield path.stem, decode(data, str(path))
    else:
        yield path.name, decode(path.read_bytes(), str(path))
