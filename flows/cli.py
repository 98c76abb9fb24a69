"""The frame of the flows' command lines: embedded defaults and exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fairgate.support.errors import FairgateError
from stages.register.environment import set_environment


def run(main: Callable[[argparse.Namespace, Path], object], parser: argparse.ArgumentParser, argv: list[str] | None = None) -> int:
    """Run one command on the project in the working directory: 0 done, 2 an error the user can act on, 130 interrupted."""
    arguments = parser.parse_args(argv)
    root = Path.cwd()
    embed(root)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        main(arguments, root)
    except FairgateError as error:
        print(f"fairgate: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fairgate: interrupted; finished stages are reused by the next run", file=sys.stderr)
        return 130
    return 0


def embed(root: Path) -> None:
    """No server, no account: Prefect on SQLite below the project, unless the environment says otherwise. Call before importing prefect."""
    set_environment()
    defaults = {
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A fresh home needs longer than the default 20 s for its migrations on two cores.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "DVC_NO_ANALYTICS": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
