"""Whether a SQLite file can be used, asked before anything long starts."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from fairgate.support.errors import FairgateError


def require_sqlite(path: Path, *, remedy: str) -> None:
    """Require that `path` is a database that can be written to, or that one can be made there.

    Args:
        path: the file.
        remedy: what to do if the file is there and is no database.

    Raises:
        FairgateError: the file is no SQLite database, or the file or its folder is closed to us.
    """
    path = path.absolute()
    if not path.exists():
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise FairgateError("no database can be made in this folder", where=str(path.parent), remedy="make the folder, and writable")
        return
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        raise FairgateError(f"not a SQLite database that can be used ({error})", where=str(path), remedy=remedy) from None
    # SQLite opens a file that it may not write to, and says so at the first write.
    if not os.access(path, os.W_OK):
        raise FairgateError("the database cannot be written to", where=str(path), remedy="make the file writable")
