"""The real pipeline as a stranger runs it: a clone of this checkout, a model given by path, real
benchmark data.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import modify_yaml

from tests.hub import Hub, serving
from tests.pipeline import environment
from tests.project import REPOSITORY
from tests.tiny import make_tiny_llama

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SMALL = {"stereoset": 120, "crows_pairs": 60, "piqa": 30, "openbookqa": 30, "boolq": 10, "perplexity": 4}
WHOLE = {"stereoset": None, "crows_pairs": None, "piqa": None, "openbookqa": None, "boolq": 500, "perplexity": 40}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with uncommitted changes included, and smaller samples; wheels come from this
    checkout's cache where it has them.
    """
    root = tmp_path_factory.mktemp("clone") / "fairgate"
    tracked = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], REPOSITORY).split("\0")
    for name in filter(None, tracked):
        if (REPOSITORY / name).is_file() and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, root / name)
    _params(root, lambda p: p["evaluate"].update(tasks=SMALL) or p["calibrate"].update(pairs=60, texts=8))
    _run(["git", "init", "-q"], root)
    _run(["git", "add", "-A"], root)
    _run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "clone"], root)
    make_tiny_llama(root.parent / "tiny", context=8192)
    return root


def test_release_of_a_model_by_path_ends_in_a_verdict_and_the_second_run_has_nothing_to_do(clone: Path) -> None:
    first = _release(clone, f"MODEL={clone.parent / 'tiny'}")
    assert first.count("  ran  ") == 12
    assert "Verdict on fair_gptq: " in first
    assert "no version, because the gate said" in first
    page = clone / "data/reports/index.html"
    assert f"Report: {page.resolve()}" in first
    assert (clone / "data/models/fair_gptq/model.safetensors").is_file()
    released = {path.name for path in (clone / "data/reports/fair_gptq/checkpoint").iterdir()}
    assert released == {path.name for path in (clone / "data/models/fair_gptq").iterdir()} | {"README.md"}
    verdict = json.loads((clone / "data/reports/fair_gptq/verdict.json").read_text())
    assert verdict["verdict"] in ("reject", "inconclusive")
    assert verdict["reasons"]

    second = _release(clone)
    assert "  ran  " not in second
    assert second.count("skipped") == 12
    assert "up to date" in _run([sys.executable, "-m", "dvc", "repro"], clone)
    # Git sees what a person would commit: the model that was asked for, and the lock of the run.
    assert _run(["git", "status", "--porcelain"], clone).split("\n")[:-1] == [" M params.yaml", "?? dvc.lock"]


def test_approved_candidate_becomes_a_version_that_serves_where_no_repository_exists(clone: Path, tmp_path: Path) -> None:
    """Known good: 8 bits of a model barely differ from it.

    The policy is the shipped one, on whole benchmarks; the model is from a hub.
    """

    def good(params: dict[str, Any]) -> None:
        params["recipes"]["fair_gptq"].update(bits=8, group_size=32, alpha=0.001)
        params["matrix"] = ["fair_gptq"]
        params["evaluate"]["tasks"] = WHOLE

    _params(clone, good)
    files = {path.name: path.read_bytes() for path in (clone.parent / "tiny").iterdir()}
    with serving(Hub(files, name="acme/tiny")) as hub:
        printed = _release(clone, f"MODEL=acme/tiny@{hub.revision}", HF_ENDPOINT=hub.endpoint)
    source = json.loads((clone / "data/base/SOURCE.json").read_text())
    assert "acme/tiny" in json.dumps(source)
    assert "Verdict on fair_gptq: approve" in printed
    assert "version 1, alias candidate" in printed
    receipt = json.loads((clone / "data/reports/fair_gptq/registration.json").read_text())
    script = (
        "import mlflow, sys\n"
        f"mlflow.set_tracking_uri('sqlite:///{clone}/mlflow.db')\n"
        f"model = mlflow.pyfunc.load_model('models:/{receipt['model_name']}@candidate')\n"
        "print(model.predict(['The gardener watered the']))\n"
        "assert 'stages' not in sys.modules\n"
    )
    env = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "version 1, alias candidate" in _release(clone)  # nothing is registered twice


def _release(root: Path, *arguments: str, **variables: str) -> str:
    """`make release`, in the environment of this test instead of one of its own."""
    (root / ".venv").mkdir(exist_ok=True)
    (root / ".venv/installed").touch()
    return _run(["make", "release", f"BIN={Path(sys.executable).parent}", *arguments], root, **variables)


def _run(command: list[str], root: Path, **variables: str) -> str:
    # This checkout's stages must not shadow the clone's.
    env = {**environment(), "PYTHONPATH": str(root), "PREFECT_HOME": str(root / ".prefect"), **variables}
    env.setdefault("FAIRGATE_CACHE", str(REPOSITORY / ".fairgate"))
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        env.pop(name, None)
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def _params(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with modify_yaml(str(root / "params.yaml")) as params:
        change(params)
