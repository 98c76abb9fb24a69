"""`fairgate verify`: check the chain of the ledger, and compare it with the live aliases."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows import cli
from flows.promotion import default_name, verify


def main(arguments: argparse.Namespace, root: Path) -> None:
    name = default_name(root) if arguments.name is None else arguments.name
    live = verify(root, Path(arguments.ledger), name=name)
    print(f"{name}: {', '.join(f'{alias} = version {version}' for alias, version in sorted(live.items())) or 'nothing promoted yet'}")


def parser(prog: str) -> argparse.ArgumentParser:
    return cli.ledger_parser(prog, "Compare the ledger with the live aliases.")


def run(argv: list[str] | None = None, prog: str = "python -m flows.verify") -> int:
    return cli.run(main, parser(prog), argv)


if __name__ == "__main__":
    sys.exit(run())
