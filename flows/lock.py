"""One release at a time in one project. The kernel frees the lock when its holder dies."""

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
    """Another release runs in this project; the message says which process."""


@contextmanager
def lock_project(root: Path) -> Iterator[str]:
    """Hold the project for one release.

    A process with the holder's token in its environment belongs to the same release and is let in.
    If an earlier holder was killed, the processes that it left running are ended first.

    Yields:
        the token that marks every process of this release through its environment.

    Raises:
        ReleaseRunning: the message holds process id, host and start time of the other release.
    """
    path = root / ".fairgate/release.lock"
    inherited = os.environ.get(TOKEN)
    if inherited and _holder(path).get("token") == inherited:
        yield inherited
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
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}
