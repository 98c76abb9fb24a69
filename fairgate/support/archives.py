"""Read texts out of plain and compressed files."""

from __future__ import annotations

import bz2
import tarfile
from collections.abc import Iterator
from pathlib import Path


def read_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of a UTF-8 file.

    A `.bz2` yields its content under the name without the suffix. A `.tar.gz` yields every file
    in it.
    """
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if (file := archive.extractfile(member)) is not None:
                    yield member.name, file.read().decode("utf-8")
    elif path.suffix == ".bz2":
        yield path.stem, bz2.decompress(path.read_bytes()).decode("utf-8")
    else:
        yield path.name, path.read_bytes().decode("utf-8")
