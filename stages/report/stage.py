"""The stage that shows: what the earlier stages wrote in, page, plots and model card out."""

from __future__ import annotations

import shutil
from pathlib import Path

from fairgate.support.disk import require_space
from fairgate.support.files import atomic_folder, atomic_path, write_json
from stages.report import card, page, plots
from stages.report.data import gather, timing


def report(root: Path, params: Path) -> None:
    """Write the report of the run below `root`.

    Args:
        root: The project's folder, with data/ below it.
        params: The parameter file.

    Raises:
        FairgateError: A file of an earlier stage is missing, broken or stale; the message names the
            stage to run.
    """
    run = gather(root, params)
    reports = root / "data" / "reports"
    _write_text(reports / "index.html", page.render(run))
    checkpoint = root / "data" / "models" / run.candidate
    _release(checkpoint, reports / run.candidate / "checkpoint", card.render(run))
    with atomic_folder(reports / "plots") as folder:
        plots.write(run, folder)
    with atomic_folder(reports / "metrics") as folder:
        for name, numbers in plots.headline(run).items():
            write_json(folder / f"{name}.json", numbers)
    # Seconds and hosts differ from run to run, so they stand beside the page, not in it.
    _write_text(reports / "timing.js", page.timing_script(timing(root)))


def _release(checkpoint: Path, out: Path, readme: str) -> None:
    """Copy the checkpoint with its card, as it goes to the hub or the registry.

    Quantize's own output stays as it is.
    """
    size = sum(file.stat().st_size for file in checkpoint.iterdir())
    require_space(out, size, what="the checkpoint with its model card")
    with atomic_folder(out) as folder:
        shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
        (folder / "README.md").write_text(readme, encoding="utf-8")


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
