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
from flows.outcome import read_verdict


def main(arguments: argparse.Namespace) -> ExitCode:
    from stages.gate.__main__ import main as judge

    judge(arguments)
    verdict = read_verdict(Path.cwd(), arguments.params).verdict
    code = exit_code_of(verdict)
    print(f"\nVerdict: {verdict}; exit code {code:d} ({code.meaning}).")
    return code


def run(argv: list[str] | None = None, prog: str = "python -m flows.gate") -> int:
    description = "Judge gate.candidate against gate.reference on the tables that evaluate wrote; the verdict is the exit code."
    return cli.run("gate", main, argparse.ArgumentParser(prog=prog, description=description), argv)


if __name__ == "__main__":
    sys.exit(run())
