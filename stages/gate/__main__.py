"""`python -m stages.gate`: judge gate.candidate against gate.reference.

It writes data/reports/<candidate>/verdict.json and prints the verdict as a table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fairgate.decision.table import terminal
from fairgate.support.cli import run
from stages.gate.stage import gate


def main(arguments: argparse.Namespace) -> None:
    print(terminal(gate(Path(), Path(arguments.params))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.gate", description=__doc__)
    sys.exit(run("gate", main, parser))
