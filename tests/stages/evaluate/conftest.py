from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.evaluate.catalogue import Catalogue
from stages.evaluate.settings import Evaluate
from tests.stages.evaluate.raw import write_raw, write_split, write_tasks
from tests.tiny import make_tiny_llama, make_tiny_opt


@pytest.fixture(scope="package")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up raw files, task files that accept them, a split file, and a tiny model."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_raw(folder / "raw")
    write_tasks(folder / "tasks")
    write_split(folder / "split.json")
    make_tiny_llama(folder / "llama")
    make_tiny_opt(folder / "opt")
    return folder


@pytest.fixture(scope="package")
def catalogue(work: Path) -> Catalogue:
    return Catalogue(work / "raw", work / "split.json", work / "tasks")


@pytest.fixture
def settings() -> Any:
    """Settings with changes: settings(batch_tokens=64)."""

    def make(**changes: Any) -> Evaluate:
        values = {"role": "gate", "seed": 0, "device": "cpu", "dtype": "float32", "batch_tokens": 512, "tasks": {}}
        return Evaluate.model_validate(values | changes)

    return make
