"""The frame of every stage's command line: exit codes, signals, logging, timing."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fairgate.support.command import run_command
from fairgate.support.files import write_json
from fairgate.support.log import log

TIMING = Path("data/timing")


def run(name: str, main: Callable[[argparse.Namespace], object], parser: argparse.ArgumentParser, argv: list[str] | None = None) -> int:
    """Run one stage and return its exit code (fairgate/support/exit_codes.py).

    Seconds, peak memory, host and date go to `data/timing/<name>.json`, outside every digest and
    dependency. `name` may hold argument fields: "quantize-{recipe}".
    """
    parser.add_argument("--params", default="params.yaml", help="parameter file")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the traceback of an unexpected error")
    arguments = parser.parse_args(argv)
    _quiet()
    # A terminated stage unwinds like an interrupted one, so half-written folders are removed.
    signal.signal(signal.SIGTERM, _interrupt)
    _offline()
    label = name.format(**vars(arguments))

    def stage() -> object:
        started = time.monotonic()
        outcome = main(arguments)
        _record(label, time.monotonic() - started)
        return outcome

    interrupted = "nothing half-written was kept, finished stages are reused"
    return run_command(label, stage, interrupted=interrupted, verbose=arguments.verbose)


def _quiet() -> None:
    """Our own progress and the libraries' warnings, without the remarks of optional parts that are not installed."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    log.setLevel(logging.INFO)
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _offline() -> None:
    """Stages read pinned local data only; fetch lifts this for itself (platform rules: no hub access at run time)."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.setdefault(variable, "1")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # gptqmodel reads it on import; its default of one worker on two cores is one too few for its own pools.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")


def _record(name: str, seconds: float) -> None:
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
