"""One thread for torch, no network, and no trace in the user's home."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "GPTQMODEL_CPU_WORKERS": "2",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)
# Under `make test-all` a test's own `make` would count itself as called by another, and print more.
for _name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(_name, None)

# The same examples each time: a run that fails can be repeated, and one that passed stays so.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile("fixed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skip", default="", help="markers whose tests must run: a skip of theirs is a failure (services,browser)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    needed = set(filter(None, item.config.getoption("--no-skip").split(",")))
    if report.skipped and needed & {mark.name for mark in item.iter_markers()}:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but must run here: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect and DVC keep their state in a temporary folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
    patch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path_factory.mktemp("dvc")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of original benchmark files that FAIRGATE_BENCHMARK_FILES names.

    It holds a folder for each benchmark, as published. Tests that need them skip without it.
    """
    folder = os.environ.get("FAIRGATE_BENCHMARK_FILES", "")
    if not folder:
        pytest.skip("FAIRGATE_BENCHMARK_FILES names no folder of original benchmark files")
    return Path(folder)
