"""Text in and out of a command: file names are UTF-8, and a terminal never stops a command."""

from __future__ import annotations

import sys

from fairgate.support.errors import FairgateError


def require_utf8() -> None:
    """Require that file names are read as UTF-8, and print with escapes what a terminal cannot.

    In another encoding a folder gets another name, which would reach the record.

    Raises:
        FairgateError: file names have another encoding, as under a locale of Latin-1.
    """
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise FairgateError(f"file names are read as {encoding}, not as UTF-8", where="LC_ALL, PYTHONUTF8", remedy="set PYTHONUTF8=1")
