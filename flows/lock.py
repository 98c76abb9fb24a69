"""One release at a time in one project: a lock that the kernel frees when its holder dies."""

from __future__ import annotations

import json
import os
import platform
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairgate.support.errors import FairgateError
from fairgate.support.locks import LockHeld, locked
from flows.dvc_runner import TOKEN, stop_leftovers


class ReleaseRunning(FairgateError):
    """Another release holds the project; the message says who."""


@contextmanager
def lock_project(root: Path) -> Iterator[str]:
    """Hold the project; yields the token that marks every process of this release through its environment.

    A process that carries the holder's token belongs to it and is let in. What an earlier holder left running when it was killed is
    ended first.
    Raises: ReleaseRunning with process id, host and start time of the holder.
    """
    path = root / ".fairgate/release.lock"
    own = os.environ.get(TOKEN)
    if own and _holder(path).get("token") == own:
        yield own
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(locked(path, busy="another release is running"))
        except LockHeld:
            holder = _holder(path)
            who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, since {holder.get('started', '?')}"
            raise ReleaseRunning(
                f"another release is running: {who}", where=str(path), remedy="wait for it, or end it with Ctrl-C or SIGTERM"
            ) from None
        former = _holder(path)
        if former.get("token"):
            stop_leftovers(former["token"])
        token = uuid.uuid4().hex
        started = datetime.now(UTC).isoformat(timespec="seconds")
        _write(file.fileno(), json.dumps({"pid": os.getpid(), "host": platform.node(), "started": started, "token": token}))
        try:
            yield token
        finally:
            _write(file.fileno(), "")


def _write(handle: int, text: str) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


def _holder(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
