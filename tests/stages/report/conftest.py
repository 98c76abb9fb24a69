from __future__ import annotations

from pathlib import Path

import pytest

from stages.report.__main__ import write
from tests.fake_run import make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its report written; read it, do not change it."""
    folder = make_run(tmp_path_factory.mktemp("report") / "run")
    write(folder, folder / "params.yaml")
    return folder
