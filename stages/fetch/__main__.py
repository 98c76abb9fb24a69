"""`python -m stages.fetch`: write data/base and data/raw."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fairgate.support.cli import run
from fairgate.support.errors import FairgateError
from fairgate.support.params import pick, read_params
from stages.fetch.stage import fetch


def main(arguments: argparse.Namespace) -> None:
    params = Path(arguments.params)
    model = pick(read_params(params), "model", where=str(params))
    if not isinstance(model, str):
        raise FairgateError(f"not a text: {model!r}", where=f"{params}:model", remedy="name a model of the manifest, a folder or a hub id")
    cache = Path(os.environ.get("FAIRGATE_CACHE", ".fairgate"))
    fetch(model, base=Path("data/base"), raw=Path("data/raw"), cache=cache, extra=arguments.set)


if __name__ == "__main__":
    # The one stage that may reach the hub; a user who set this to 1 stays offline.
    os.environ.setdefault("HF_HUB_OFFLINE", "0")
    parser = argparse.ArgumentParser(prog="python -m stages.fetch", description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="NAME", help="a data set to fetch besides the default ones")
    sys.exit(run("fetch", main, parser))
