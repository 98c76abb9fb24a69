"""The one schema of benchmarks/results: a JSON list of measurements a file, one measurement a
figure.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field

from fairgate.support.files import read_json, write_json

Result = TypeVar("Result")


class Measurement(BaseModel):
    """One measured figure and all that a reader needs to doubt it.

    A field that says nothing is null.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="what was measured; with model and recipe it is unique in a file")
    model: str | None = Field(None, description="the model measured on")
    recipe: str | None = Field(None, description="the recipe that made it, as in params.yaml")
    value: float = Field(description="the figure: the median of `runs`, or the mean over seeds")
    low: float | None = Field(None, description="lower end of its interval, or the least run")
    high: float | None = Field(None, description="upper end of its interval, or the largest run")
    unit: str = Field(description="unit of value, low, high, target and runs")
    target: float | tuple[float | None, float | None] | None = Field(
        None, description="what was aimed at: one bound, or the ends of a range, null where it is open"
    )
    seeds: int | None = Field(None, description="random seeds behind the value")
    peer: str | None = Field(None, description="what it is compared with, and at which settings")
    machine: str = Field(description="GPU or CPU")
    versions: dict[str, str] = Field(description="package -> version")
    shape: str | None = Field(None, description="sizes of what was measured")
    runs: list[float] | None = Field(None, description="every run, or every seed, in the order taken")
    date: date
    command: str = Field(description="what makes the figure again")
    extrapolated: bool = Field(False, description="true if the value was computed from a shorter run")
    details: dict[str, Any] | None = Field(None, description="further figures of the same run")

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """What identifies the measurement in its file."""
        return self.name, self.model, self.recipe


_SCHEMA = set(Measurement.model_fields) - {"details"}


def measurement(**fields: Any) -> Measurement:
    """A measurement; what the schema does not name goes to `details`."""
    details = {name: value for name, value in fields.items() if name not in _SCHEMA}
    return Measurement(**{name: value for name, value in fields.items() if name in _SCHEMA}, details=details or None)


def read(path: Path) -> list[Measurement]:
    """The measurements of a file; none where there is no file."""
    return [Measurement.model_validate(row) for row in read_json(path)] if path.is_file() else []


def merge(path: Path, rows: Iterable[Measurement]) -> None:
    """Write measurements into a file; one with the same name, model and recipe is replaced."""
    merged = {row.key: row for row in (*read(path), *rows)}
    write_json(path, [row.model_dump(mode="json") for row in merged.values()])


class Records:
    """Figures as they are measured.

    Each is written at once, so that a run cut short leaves what it has.
    """

    def __init__(self, path: Path, module: str, packages: Sequence[str] = ("transformers",), **common: Any) -> None:
        """Start recording.

        Args:
            path: the file of benchmarks/results.
            module: the script, for the recorded command.
            packages: whose versions are recorded besides torch's.
            common: fields that every figure of this run shares, such as the shape of the model.
        """
        self.path, self.common = path, common
        self.command = f"python -m benchmarks.{module} {' '.join(sys.argv[1:])}".strip()
        self.versions = {"python": platform.python_version()} | {name: _version(name) for name in ("torch", *packages)}

    def add(self, name: str, values: Sequence[float], unit: str, **more: Any) -> float:
        """Record the median of `values`; returns it."""
        row = measurement(
            **{
                "name": name,
                "value": round(statistics.median(values), 3),
                "runs": [round(value, 3) for value in values],
                "unit": unit,
                "machine": machine(),
                "versions": self.versions,
                "date": datetime.now(UTC).date(),
                "command": self.command,
                **self.common,
                **more,
            }
        )
        merge(self.path, [row])
        print(f"{name}: {row.value} {unit} {row.runs} {row.details or ''}", flush=True)
        return row.value

    def detail(self, name: str, key: str) -> Any:
        """One of the details of a figure recorded before."""
        return next((row.details or {})[key] for row in read(self.path) if row.name == name)


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


def peak_gib() -> float | None:
    """GiB of GPU memory that the process held since the last call; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    peak = torch.cuda.max_memory_reserved() / 2**30
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return round(peak, 2)


def machine() -> str:
    """The GPU, or the CPU and how many threads torch uses on it."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
