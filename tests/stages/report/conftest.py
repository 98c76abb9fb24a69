from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.contracts.records import Quantization, Status, read_record, write_record
from stages.report.stage import report as write_report
from tests.fake_run import RECIPES, make_run

GRID = {"bits": 4, "group_size": 64, "symmetric": True}
LEARNED = {
    **RECIPES,
    "learned": {"method": "learned", **GRID},
    "fair_round": {"method": "fair_round", "start": "rtn", "steps": 60, "parity": 2.0, "anchor": 5.0, **GRID},
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its report written; read it, do not change it."""
    folder = make_run(tmp_path_factory.mktemp("report") / "run")
    write_report(folder, folder / "params.yaml")
    return folder


@pytest.fixture(scope="session")
def learned_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with learned rounding, `learned` of which stopped early."""
    folder = make_run(tmp_path_factory.mktemp("report") / "learned", recipes=LEARNED, items=8)
    stop(folder, "learned")
    write_report(folder, folder / "params.yaml")
    return folder


def stop(folder: Path, recipe: str) -> None:
    """Make a recipe's record one of learning that stopped early."""
    path = folder / "data" / "models" / recipe / "quantization.json"
    record = read_record(Quantization, path)
    assert record.training
    training = record.training.model_copy(update={"steps": 50, "stopped": "step 57: divergence is not finite"})
    modules = [module.model_copy(update={"status": Status.stopped}) for module in record.modules]
    write_record(path, record.model_copy(update={"training": training, "modules": modules}))
