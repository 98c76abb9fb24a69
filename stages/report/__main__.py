"""`python -m stages.report`: the page data/reports/index.html with timing.js, plots and metrics, and the checkpoint with its card."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from fairgate.support.cli import run
from fairgate.support.disk import require_space
from fairgate.support.files import atomic_folder, atomic_path, write_json
from stages.report import card, page, plots
from stages.report.data import gather, timing


def write(root: Path, params: Path) -> None:
    """Write the report of the run below `root`."""
    report = gather(root, params)
    reports = root / "data" / "reports"
    _write(reports / "index.html", page.render(report))
    _release(root / "data" / "models" / report.candidate, reports / report.candidate / "checkpoint", card.render(report))
    with atomic_folder(reports / "plots") as folder:
        plots.write(report, folder)
    with atomic_folder(reports / "metrics") as folder:
        for name, numbers in plots.headline(report).items():
            write_json(folder / f"{name}.json", numbers)
    # Seconds and hosts differ from run to run, so they stand beside the page, not in it.
    _write(reports / "timing.js", page.timing_script(timing(root)))


def _release(checkpoint: Path, out: Path, text: str) -> None:
    """The candidate's checkpoint with its card in it, as it goes to the hub or the registry; quantize's own output stays as it is."""
    size = sum(file.stat().st_size for file in checkpoint.iterdir())
    require_space(out, size, what="the checkpoint with its model card")
    with atomic_folder(out) as folder:
        shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
        (folder / "README.md").write_text(text, encoding="utf-8")


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(arguments: argparse.Namespace) -> None:
    write(Path(), Path(arguments.params))


if __name__ == "__main__":
    sys.exit(run("report", main, argparse.ArgumentParser(prog="python -m stages.report", description=__doc__)))
