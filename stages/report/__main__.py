"""`python -m stages.report`: writes data/reports/index.html with timing.js, plots and metrics beside it, and the model card."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stages.common.cli import run
from stages.common.files import atomic_folder, atomic_path, write_json
from stages.report import card, page, plots
from stages.report.data import gather, timing


def write(root: Path, params: Path) -> None:
    """Write the report of the run below `root`."""
    report = gather(root, params)
    reports = root / "data" / "reports"
    _write(reports / "index.html", page.render(report))
    _write(reports / report.candidate / "README.md", card.render(report))
    with atomic_folder(reports / "plots") as folder:
        plots.write(report, folder)
    with atomic_folder(reports / "metrics") as folder:
        for name, numbers in plots.headline(report).items():
            write_json(folder / f"{name}.json", numbers)
    # Seconds and hosts differ from run to run, so they stand beside the page, not in it.
    _write(reports / "timing.js", page.timing_script(timing(root)))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(arguments: argparse.Namespace) -> None:
    write(Path(), Path(arguments.params))


if __name__ == "__main__":
    sys.exit(run("report", main, argparse.ArgumentParser(prog="python -m stages.report", description=__doc__)))
