"""One line per task on stderr."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field


@dataclass
class ProgressLine:
    """Items, items/s and time left of one task, rewritten in place on a terminal.

    requests: parts of the task's work; an item may have several.
    """

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
