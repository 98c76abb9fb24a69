"""Errors of fetching."""

from __future__ import annotations

from fairgate.support.errors import FairgateError


class Unavailable(FairgateError):
    """An origin could not be reached or does not have the file; the next origin is tried."""


class HashMismatch(FairgateError):
    """Content is not what was pinned; no other origin is tried."""


class CountMismatch(FairgateError):
    """A file holds another number of records than its origin is known for."""
