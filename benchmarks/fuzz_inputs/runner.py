"""Many cases in processes of their own, each watched by a clock, written to a log to go on from."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

from fairgate.support.offline import go_offline

LIMIT_S = 30.0
_START_S = 300.0  # imports and sound inputs, on a machine that is busy with something else
_MEMORY = 4 * 2**30  # a case that asks for more fails by itself, and does not take others with it


class Worker:
    """A process that runs cases one after the other. It is replaced when it hangs or dies."""

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._end: Connection | None = None

    def run(self, number: int) -> dict[str, Any]:
        """The case as a row of the log."""
        if self._process is None:
            self._start()
        row = self._answer(LIMIT_S, number)
        if isinstance(row, dict):
            return row
        self.stop()
        return {"number": number, "kind": "", "steps": [], "outcome": {"end": "failure", "what": row, "details": ""}}

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._end = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        if self._answer(_START_S) != {"ready": True}:
            raise RuntimeError("a worker process does not start")

    def _answer(self, limit_s: float, number: int | None = None) -> dict[str, Any] | str:
        """What the process sends, of a case that is asked for first, or why it sends nothing."""
        assert self._end is not None and self._process is not None
        try:
            if number is not None:
                self._end.send(number)
            if self._end.poll(limit_s):
                answer: dict[str, Any] = self._end.recv()
                return answer
        except (EOFError, OSError):
            self._process.join()
            return f"the process died (exit code {self._process.exitcode})"
        return f"no end after {limit_s:.0f} s"


def _serve(end: Connection) -> None:
    go_offline()
    os.environ["RUST_BACKTRACE"] = "0"  # a panic of the tokenizers is refused, and its stack is of no use
    import torch

    from benchmarks.fuzz_inputs.cases import make_sound, run_case

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz-inputs-") as folder:
        make_sound(Path(folder))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
        end.send({"ready": True})
        while True:
            number = end.recv()
            started = time.monotonic()
            end.send({**asdict(run_case(number, Path(folder))), "seconds": round(time.monotonic() - started, 3)})


def run_cases(numbers: Iterable[int], log: Path, processes: int) -> None:
    """Run the cases and append them to the log, with the commit that they ran on."""
    waiting: SimpleQueue[int] = SimpleQueue()
    for number in numbers:
        waiting.put(number)
    writing, code = Lock(), commit()
    log.parent.mkdir(parents=True, exist_ok=True)

    def work() -> None:
        worker = Worker()
        try:
            while True:
                row = {**worker.run(waiting.get_nowait()), "commit": code}
                with writing, log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                if row["outcome"]["end"] == "failure":
                    print(f"case {row['number']} ({row['kind']}; {row['steps']}): {row['outcome']['what']}", flush=True)
        except Empty:
            return
        finally:
            worker.stop()

    with ThreadPoolExecutor(processes) as pool:
        for future in [pool.submit(work) for _ in range(processes)]:
            future.result()


def read_log(path: Path, *, last: bool = True) -> dict[int, dict[str, Any]]:
    """The last row of every case, or the first."""
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return {row["number"]: row for row in (rows if last else reversed(rows))}


def failures(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of cases that failed."""
    return [row for row in rows if row["outcome"]["end"] == "failure"]


def counted(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How many cases of each kind ended how."""
    table: dict[str, Counter[str]] = {}
    for row in rows:
        table.setdefault(row["kind"] or "unknown", Counter())[row["outcome"]["end"]] += 1
    return {kind: dict(sorted(ends.items())) for kind, ends in sorted(table.items())}


def commit() -> str:
    """The commit of the code, and whether it was changed since."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "HEAD") + ("-changed" if git("status", "--porcelain", "--untracked-files=no") else "")
