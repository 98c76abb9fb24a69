"""Recorded figures: what was measured, on what machine, by which command."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from stages.common.files import write_json

Result = TypeVar("Result")


def timed(run: Callable[[], Result]) -> tuple[float, Result]:
    """Wall-clock seconds, with the GPU's work done, and the result."""
    _wait()
    started = time.perf_counter()
    result = run()
    _wait()
    return time.perf_counter() - started, result


def record(path: Path, module: str, name: str, runs: Sequence[float], unit: str, *, target: float | None = None, **more: Any) -> None:
    """Put the median of `runs` into the list at `path`, in the place of an older figure of that name; written at once."""
    on_gpu = torch.cuda.is_available()
    row = {
        "name": name,
        "value": round(statistics.median(runs), 3),
        "runs": [round(run, 3) for run in runs],
        "unit": unit,
        "target": target,
        "peer": None,
        "machine": torch.cuda.get_device_name() if on_gpu else f"CPU {platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("torch", "transformers", "lm-eval")},
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m benchmarks.{module} {' '.join(sys.argv[1:])}".strip(),
        **more,
    }
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    write_json(path, [*(other for other in rows if other["name"] != name), row])
    print(f"{name}: {row['value']} {unit} {row['runs']} {more or ''}", flush=True)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
