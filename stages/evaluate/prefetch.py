"""Results that worker processes make ahead of their use."""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def prefetch(make: Callable[[In], Out], inputs: Sequence[In], workers: int) -> Iterator[Out]:
    """make(input) in order; while one result is used, `workers` processes make the next ones.

    Without workers each result is made when it is asked for. Threads would not do: each of the
    thousand launches of a forward pass would wait for the interpreter's lock.
    """
    if not workers:
        yield from map(make, inputs)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _exit_with_parent)
    waiting: deque[Future[Out]] = deque()
    left = iter(inputs)
    try:
        for _ in inputs:
            while len(waiting) <= workers and (following := next(left, None)) is not None:
                waiting.append(pool.submit(make, following))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _exit_with_parent() -> None:
    """End this worker with the process that started it, however that one ends."""

    def watch() -> None:
        parent = parent_process()
        if parent:
            wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    gc.set_threshold(50_000, 20, 100)  # as in __main__.py
