"""`python -m stages.quantize --recipe NAME`: one recipe of params.yaml -> data/models/NAME."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fairgate.support.cli import run
from fairgate.support.params import load


def main(arguments: argparse.Namespace) -> None:
    # Matrices of many sizes come and go: with segments that grow, a GPU's memory holds a quarter
    # more of them. Read when torch is imported.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

    # Imported here, after logging is set up and the recipe is read: torch and transformers take
    # seconds and have much to say.
    from stages.quantize.settings import RunSettings, read_recipe

    recipe = read_recipe(arguments.recipe, arguments.params)
    settings = load(RunSettings, "quantize", arguments.params)
    from stages.quantize.stage import quantize

    out = arguments.out or Path("data/models") / arguments.recipe
    quantize(arguments.recipe, recipe, settings, arguments.base, arguments.calibration, out, Path(".fairgate/quantize") / arguments.recipe)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.quantize", description=__doc__)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--base", type=Path, default=Path("data/base"))
    parser.add_argument("--calibration", type=Path, default=Path("data/calibration"))
    parser.add_argument("--out", type=Path)
    sys.exit(run("quantize-{recipe}", main, parser))
