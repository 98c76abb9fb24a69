"""`fairgate promote`: a second person makes an approved version the champion."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows import cli
from flows.promotion import promote


def main(arguments: argparse.Namespace, root: Path) -> None:
    entry = promote(
        root, Path(arguments.ledger), version=arguments.version, approver=arguments.approver, reason=arguments.reason, name=arguments.name
    )
    print(f"{entry.model}: champion is version {entry.after} (was {entry.before or 'none'}); written to {arguments.ledger}")


def parser(prog: str) -> argparse.ArgumentParser:
    parser = cli.ledger_parser(prog, "Make an approved version the champion.")
    parser.add_argument("--version", required=True, help="version number; there is no 'latest'")
    parser.add_argument("--approver", required=True, help="who approves; not the author of the run")
    parser.add_argument("--reason", required=True, help="why; it is written to the ledger")
    return parser


def run(argv: list[str] | None = None, prog: str = "python -m flows.promote") -> int:
    return cli.run(main, parser(prog), argv)


if __name__ == "__main__":
    sys.exit(run())
