"""`python -m stages.report`: the page, the plots, and the candidate's checkpoint with its card.

It writes data/reports/index.html with timing.js, plots/, metrics/ and <candidate>/checkpoint/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fairgate.support.cli import run
from stages.report.stage import report


def main(arguments: argparse.Namespace) -> None:
    report(Path(), Path(arguments.params))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.report", description=__doc__)
    sys.exit(run("report", main, parser))
