"""Real small parts to fetch: a wheel, a Hugging Face folder, a GGUF file, and a hub."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import Hub, serving
from tests.tiny import make_tiny


def make_wheel(folder: Path, members: dict[str, bytes], name: str = "tiny_data", version: str = "1.0") -> Path:
    """A wheel that pip accepts; its package raises when imported."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": b"raise RuntimeError('imported')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **members,
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in files.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            archive.writestr(member, data)
    return path


def make_model(folder: Path) -> Path:
    """A folder with the files of a small Hugging Face model."""
    return make_tiny("llama", folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub with one small model; this process may reach it."""
    model = make_model(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in sorted(model.iterdir())} | {"pytorch_model.bin": b"pickle", "run.py": b"code"}
    with serving(Hub(files)) as held:
        monkeypatch.setenv("HF_ENDPOINT", held.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield held
