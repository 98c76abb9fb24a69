"""A small sound model folder, and what it takes to spoil it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tiny import make_tiny


@pytest.fixture(scope="session")
def _sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def model(_sound: Path, tmp_path: Path) -> Path:
    """A sound folder with tied embeddings, of this test alone."""
    return Path(shutil.copytree(_sound, tmp_path / "model"))


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def put(folder: Path, state: Mapping[str, Tensor], name: str = "model.safetensors") -> None:
    save_file({key: value.clone().contiguous() for key, value in state.items()}, folder / name, metadata={"format": "pt"})


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; `...` removes one."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}), encoding="utf-8")


def shard(folder: Path, *, index: bool = True) -> dict[str, str]:
    """Split the weights into two shards; returns the file of each tensor."""
    state = tensors(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    files = {name: f"model-0000{1 + (2 * at >= len(names))}-of-00002.safetensors" for at, name in enumerate(names)}
    for file in set(files.values()):
        put(folder, {name: state[name] for name in names if files[name] == file}, file)
    if index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return files
