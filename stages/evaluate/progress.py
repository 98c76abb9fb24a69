"""One line per task on stderr, and work that is done ahead of its use."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def ahead(make: Callable[[In], Out], inputs: Sequence[In], workers: int) -> Iterator[Out]:
    """make(input) in order; while one result is used, `workers` processes make the next ones (0: none does).

    Threads would not do: each of the thousand launches of a forward pass would wait for the interpreter's lock.
    """
    if not workers:
        yield from map(make, inputs)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _outlive_nobody)
    waiting: deque[Future[Out]] = deque()
    left = iter(inputs)
    try:
        for _ in inputs:
            while len(waiting) <= workers and (following := next(left, None)) is not None:
                waiting.append(pool.submit(make, following))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _outlive_nobody() -> None:
    """A worker ends with the process that started it, however that one ends."""

    def watch() -> None:
        parent = parent_process()
        if parent:
            wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    gc.set_threshold(50_000, 20, 100)  # as in __main__.py


@dataclass
class Progress:
    """Items, items/s and time left of one task (rewritten in place on a terminal); `requests`: parts of its work, all items together."""

    name: str
    items: int
    requests: int
    started: float = field(default_factory=time.monotonic)
    done: int = 0

    def update(self, requests: int) -> None:
        self.done += requests
        if sys.stderr.isatty():
            print(f"\r{self._line()}\x1b[K", end="", file=sys.stderr, flush=True)

    def finish(self) -> None:
        print(f"\r{self._line()}\x1b[K" if sys.stderr.isatty() else self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        seconds = max(time.monotonic() - self.started, 1e-9)
        left = seconds / max(self.done, 1) * (self.requests - self.done)
        share = self.done / self.requests
        rate = share * self.items / seconds
        return f"{self.name}: {share:.0%} of {self.items} items, {rate:.1f} items/s, {seconds:.0f} s" + (
            f", {left:.0f} s left" if left else ""
        )
