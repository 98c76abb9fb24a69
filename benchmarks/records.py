"""Recorded figures: one JSON list a file, one row a figure, with what it was measured on."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from stages.common.files import write_json


class Records:
    """Figures as they are measured; every one is written at once, so that a run cut short leaves what it has."""

    def __init__(self, path: Path, module: str, shape: str, packages: Sequence[str] = ("transformers",)) -> None:
        self.path, self.shape, self.rows = path, shape, [] if not path.exists() else json.loads(path.read_text())
        self.command = f"python -m {module} {' '.join(sys.argv[1:])}"
        self.versions = {"python": platform.python_version(), "torch": torch.__version__} | {name: _version(name) for name in packages}

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
            "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU {platform.machine()}",
            "versions": self.versions,
            "shape": self.shape,
            "date": datetime.now(UTC).date().isoformat(),
            "command": self.command,
            **more,
        }
        self.rows = [*(other for other in self.rows if other["name"] != name), row]
        write_json(self.path, self.rows)
        print(f"{name}: {row['value']} {unit} {row['runs']} {more or ''}", flush=True)
        return float(row["value"])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
