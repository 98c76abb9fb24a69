"""`python -m flows.verify`: the ledger's chain holds, and the live aliases are where it says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows import cli
from flows.promote import default_name, parser, verify


def main(arguments: argparse.Namespace, root: Path) -> None:
    name = arguments.name or default_name(root)
    live = verify(root, Path(arguments.ledger), name=name)
    print(f"{name}: {', '.join(f'{alias} = version {version}' for alias, version in sorted(live.items())) or 'nothing promoted yet'}")


if __name__ == "__main__":
    sys.exit(cli.run(main, parser("verify", "Compare the ledger with the live aliases.")))
