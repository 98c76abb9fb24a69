"""An MLflow database, made once a session: the migrations take longer than most tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def own_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore what MLflow writes into the environment: the URI that a run was opened with."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)


def seed(root: Path, migrated: Path) -> Path:
    os.environ["MLFLOW_TRACKING_URI"] = ""
    shutil.copy(migrated, root / "mlflow.db")
    return root
