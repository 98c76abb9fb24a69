"""`python -m flows.rollback`: back to the former champion, in one command, written to the ledger."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows import cli
from flows.promote import parser, rollback


def main(arguments: argparse.Namespace, root: Path) -> None:
    entry = rollback(root, Path(arguments.ledger), actor=arguments.actor, reason=arguments.reason, name=arguments.name)
    print(f"{entry.model}: champion is version {entry.after} again (was {entry.before}); written to {arguments.ledger}")


def _parser() -> argparse.ArgumentParser:
    own = parser("rollback", "Point the alias champion back at the former champion.")
    own.add_argument("--actor", required=True, help="who does it")
    own.add_argument("--reason", required=True)
    return own


if __name__ == "__main__":
    sys.exit(cli.run(main, _parser()))
