"""`fairgate gate`: judge the candidate and exit by the verdict.

DVC takes any code but 0 for a failed stage. Its stage `python -m stages.gate` therefore exits with
0 whenever it reached a verdict.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fairgate.support import cli
from fairgate.support.exit_codes import ExitCode, exit_code_of


def main(arguments: argparse.Namespace) -> ExitCode:
    # Late, so that `fairgate gate --help` does not import what the statistics need.
    from fairgate.decision.table import terminal
    from stages.gate.stage import gate

    record = gate(Path(), Path(arguments.params))
    code = exit_code_of(record.verdict)
    print(terminal(record))
    print(f"\nVerdict: {record.verdict}; exit code {code:d} ({code.meaning}).")
    return code


def run(argv: list[str] | None = None, prog: str = "python -m flows.gate") -> int:
    description = "Judge gate.candidate against gate.reference on the tables that evaluate wrote; the verdict is the exit code."
    return cli.run("gate", main, argparse.ArgumentParser(prog=prog, description=description), argv)


if __name__ == "__main__":
    sys.exit(run())
