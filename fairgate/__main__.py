"""The console script `fairgate`, which is `python -m fairgate` too.

A command is imported only when it is called, so that `fairgate --help` answers at once. A command
is a module with a function `run(argv, prog)` that returns the exit code.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import NamedTuple

from fairgate.support.command import run_command
from fairgate.support.exit_codes import ExitCode


class Command(NamedTuple):
    """A subcommand: the module that runs it, and one line of help."""

    module: str
    help: str


COMMANDS = {
    "release": Command("flows.release", "run the whole pipeline and print the verdict"),
    "check": Command("fairgate.model_folder.command", "say whether a model folder is fit, in seconds"),
    "gate": Command("flows.gate", "judge the candidate on the tables that are there"),
    "promote": Command("flows.promote", "make an approved version the champion"),
    "rollback": Command("flows.rollback", "make the former champion the champion again"),
    "verify": Command("flows.verify", "compare the ledger with the live aliases"),
    "smoke": Command("flows.smoke.command", "run the whole pipeline on a two-layer model, in under a minute"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit code (fairgate/support/exit_codes.py)."""
    arguments = sys.argv[1:] if argv is None else argv
    name, *rest = arguments or ["--help"]
    if name not in COMMANDS:
        _parser().parse_args([name])  # --help, or an error that lists the commands
    interrupted = "the command had not started"

    def command() -> ExitCode:
        run = import_module(COMMANDS[name].module).run
        return ExitCode(run(rest, f"fairgate {name}"))

    return run_command(name, command, interrupted=interrupted)


def _parser() -> argparse.ArgumentParser:
    commands = [f"  {name:<10}{command.help}" for name, command in COMMANDS.items()]
    codes = [f"  {code:<10d}{code.meaning}" for code in ExitCode]
    parser = argparse.ArgumentParser(
        prog="fairgate",
        description="Ship a language model in 4 bits and prove that it did not become more biased on the way.",
        usage="fairgate [--help] COMMAND [--help] ...",
        epilog="\n".join(["commands:", *commands, "", "exit codes:", *codes]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    return parser


if __name__ == "__main__":
    sys.exit(main())
