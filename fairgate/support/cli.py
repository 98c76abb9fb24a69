"""The frame of every stage's command line."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable

from fairgate.support.command import run_command
from fairgate.support.encoding import require_utf8
from fairgate.support.git import forget_repository
from fairgate.support.log import log_to_stderr
from fairgate.support.offline import go_offline, require_hub_settings
from fairgate.support.timing import record_timing


def run(name: str, main: Callable[[argparse.Namespace], object], parser: argparse.ArgumentParser, argv: list[str] | None = None) -> int:
    """Run one stage and return its exit code (fairgate/support/exit_codes.py).

    Seconds, peak memory, host and date go to `data/timing/<name>.json`, outside every digest and
    dependency. `name` may hold argument fields: "quantize-{recipe}".
    """
    parser.add_argument("--params", default="params.yaml", help="parameter file")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the traceback of an unexpected error")
    arguments = parser.parse_args(argv)
    log_to_stderr()
    # A terminated stage unwinds like an interrupted one, so half-written folders are removed.
    signal.signal(signal.SIGTERM, _interrupt)
    go_offline()
    forget_repository()
    label = name.format(**vars(arguments))

    def stage() -> object:
        require_utf8()
        require_hub_settings()
        started = time.monotonic()
        outcome = main(arguments)
        record_timing(label, time.monotonic() - started)
        return outcome

    interrupted = "nothing half-written was kept, finished stages are reused"
    return run_command(label, stage, interrupted=interrupted, verbose=arguments.verbose)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
