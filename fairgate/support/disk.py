"""Free disk space, asked for before anything large is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from fairgate.support.errors import FairgateError


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
