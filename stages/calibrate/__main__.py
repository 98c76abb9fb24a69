"""`python -m stages.calibrate`: data/raw -> data/calibration."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fairgate.support.cli import run
from fairgate.support.params import load
from stages.calibrate.stage import Settings, calibrate


def main(arguments: argparse.Namespace) -> None:
    calibrate(load(Settings, "calibrate", arguments.params), arguments.raw, arguments.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.calibrate", description=__doc__)
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--out", type=Path, default=Path("data/calibration"))
    sys.exit(run("calibrate", main, parser))
