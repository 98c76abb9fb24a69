"""Locks between processes.

The kernel frees them when their holder dies, even by `kill -9`. They are `flock` by hand, not the
package `filelock`, for four needs that it does not meet: a shared lock; a lock on the data file
itself, which is read and appended to while it is held (the ledger, an evaluation's scores); a
message in the lock file that says who holds it (the release); and never a lock that outlives its
process, which is what `filelock` falls back to where a file system has no `flock`.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fairgate.support.errors import FairgateError


class LockHeld(FairgateError):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, *, busy: str | None = None, shared: bool = False) -> Iterator[IO[bytes]]:
    """Hold the lock of the file `path`; yields the file, open for reading and appending.

    The file is made, with its folder, where it does not exist, and stays. Its content is the
    caller's own. Not re-entrant: a second lock on the same file waits for the first, in the same
    process too.

    Args:
        path: the file to lock.
        busy: what the error says if another process holds the lock. None means wait for it.
        shared: other holders of a shared lock are let in, a holder of an exclusive one is not.

    Raises:
        LockHeld: another process holds it and `busy` is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if busy else 0)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, operation)
        except BlockingIOError:
            raise LockHeld(busy or "", where=str(path), remedy="wait for it, or end it") from None
        yield file
