"""The frame of the flows' command lines: default settings, shared arguments and exit codes."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable
from pathlib import Path

from fairgate.support.command import run_command
from fairgate.support.encoding import require_utf8
from fairgate.support.git import forget_repository
from fairgate.support.user import require_user
from flows.proxies import spare_local_servers
from stages.register.environment import set_environment


def run(main: Callable[[argparse.Namespace, Path], object], parser: argparse.ArgumentParser, argv: list[str] | None = None) -> int:
    """Run one command on the project in the working directory.

    Returns:
        its exit code (fairgate/support/exit_codes.py): the one that `main` returns, else `done`.
    """
    parser.add_argument("-v", "--verbose", action="store_true", help="print the traceback of an unexpected error")
    arguments = parser.parse_args(argv)
    root = Path.cwd()
    set_defaults(root)
    signal.signal(signal.SIGTERM, _interrupt)
    name = parser.prog.split()[-1].rpartition(".")[2]
    interrupted = "finished stages are reused by the next run"

    def command() -> object:
        require_utf8()
        require_user()
        return main(arguments, root)

    return run_command(name, command, interrupted=interrupted, verbose=arguments.verbose)


def ledger_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that promote, rollback and verify share."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--name", help="registered model; taken from `model` in params.yaml if not given")
    parser.add_argument("--ledger", default="ledger.jsonl", help="the ledger's file")
    return parser


def set_defaults(root: Path) -> None:
    """Let Prefect and MLflow work without server and account: SQLite files below the project.

    What the environment already says stays, but for the variables by which git would ask another
    repository. Call this before importing prefect.
    """
    set_environment()
    forget_repository()
    defaults = {
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "DVC_NO_ANALYTICS": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    spare_local_servers()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
