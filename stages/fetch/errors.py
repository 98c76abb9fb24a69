"""Errors of fetching."""

from __future__ import annotations

from fairgate.support.errors import FairgateError


class Unavailable(FairgateError):
    """An origin cannot be reached or does not have the file. The next origin is tried."""


class HashMismatch(FairgateError):
    """The content is not what was pinned. No other origin is tried."""


class CountMismatch(FairgateError):
    """A file does not hold the number of records that the manifest states."""
