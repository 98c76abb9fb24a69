"""Recorded figures: one JSON list a file, one row a figure, with what it was measured on."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch

from fairgate.support.files import write_json

Result = TypeVar("Result")


class Records:
    """Figures as they are measured; every one is written at once, so that a run cut short leaves what it has."""

    def __init__(self, path: Path, module: str, packages: Sequence[str] = ("transformers",), **common: Any) -> None:
        """`common`: what every row of this run says, such as the shape of the model."""
        self.path, self.common, self.rows = path, common, [] if not path.exists() else json.loads(path.read_text(encoding="utf-8"))
        self.command = f"python -m benchmarks.{module} {' '.join(sys.argv[1:])}".strip()
        self.versions = {"python": platform.python_version()} | {name: _version(name) for name in ("torch", *packages)}

    def add(
        self, name: str, values: Sequence[float], unit: str, *, target: float | None = None, peer: str | None = None, **more: Any
    ) -> float:
        """Record the median of `values`; a figure of the same name is replaced."""
        row = {
            "name": name,
            "value": round(statistics.median(values), 3),
            "runs": [round(value, 3) for value in values],
            "unit": unit,
            "target": target,
            "peer": peer,
            "machine": _machine(),
            "versions": self.versions,
            "date": datetime.now(UTC).date().isoformat(),
            "command": self.command,
            **self.common,
            **more,
        }
        self.rows = [*(other for other in self.rows if other["name"] != name), row]
        write_json(self.path, self.rows)
        print(f"{name}: {row['value']} {unit} {row['runs']} {more or ''}", flush=True)
        return float(row["value"])


def timed(run: Callable[[], Result]) -> tuple[float, Result]:
    """Wall-clock seconds, with the GPU's work done, and the result."""
    _wait()
    started = time.perf_counter()
    result = run()
    _wait()
    return time.perf_counter() - started, result


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _machine() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
