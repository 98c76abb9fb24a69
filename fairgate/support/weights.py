"""Checks of safetensors files that read no weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from fairgate.support.errors import BadRecord


def require_whole_weights(paths: Iterable[Path], *, remedy: str, model: str = "") -> None:
    """Raise BadRecord if a safetensors file is cut short or its header is damaged.

    Args:
        paths: the files.
        remedy: what the message advises.
        model: named in the message instead of the folder, for files in a temporary one.
    """
    for path in paths:
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            raise BadRecord(
                f"not a whole safetensors file ({error})", where=f"{model}/{path.name}" if model else str(path), remedy=remedy
            ) from None
