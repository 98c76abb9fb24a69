"""How long a stage took and how much memory it used."""

from __future__ import annotations

import os
import platform
import resource
import sys
from datetime import UTC, datetime
from pathlib import Path

from fairgate.support.files import write_json
from fairgate.support.log import log

TIMING = Path("data/timing")


def record_timing(name: str, seconds: float) -> None:
    """Write `data/timing/<name>.json`: seconds, peak memory, host, date.

    No digest and no dependency of a stage includes these files.
    """
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record = {
        "schema": 1,
        "name": name,
        "seconds": round(seconds, 2),
        "peak_rss_gib": round(peak_kib / 2**20, 3),
        "peak_gpu_gib": _gpu_peak_gib(),
        "host": {"machine": platform.machine(), "processors": os.cpu_count(), "python": platform.python_version()},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(TIMING / f"{name}.json", record)
    log.info("%s: %.1f s, peak memory %.2f GiB", name, seconds, peak_kib / 2**20)


def _gpu_peak_gib() -> float | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return round(torch.cuda.max_memory_allocated() / 2**30, 3)
