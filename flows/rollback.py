"""`fairgate rollback`: make the former champion the champion again, and write it to the ledger."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows import cli
from flows.promotion import rollback


def main(arguments: argparse.Namespace, root: Path) -> None:
    entry = rollback(root, Path(arguments.ledger), actor=arguments.actor, reason=arguments.reason, name=arguments.name)
    print(f"{entry.model}: champion is version {entry.after} again (was {entry.before}); written to {arguments.ledger}")


def parser(prog: str) -> argparse.ArgumentParser:
    parser = cli.ledger_parser(prog, "Point the alias champion back at the former champion.")
    parser.add_argument("--actor", required=True, help="who does it")
    parser.add_argument("--reason", required=True, help="why; it is written to the ledger")
    return parser


def run(argv: list[str] | None = None, prog: str = "python -m flows.rollback") -> int:
    return cli.run(main, parser(prog), argv)


if __name__ == "__main__":
    sys.exit(run())
