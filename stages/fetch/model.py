"""The base model: a Hugging Face folder with safetensors weights.

It comes from an origin of the manifest, from a local folder, or from the hub.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fairgate.support.digests import sha256_file
from fairgate.support.disk import require_space
from fairgate.support.errors import BadRecord, FairgateError, MissingFile, UnknownName
from fairgate.support.files import atomic_folder, read_json, write_json
from fairgate.support.log import log
from fairgate.support.weights import require_whole_weights
from stages.fetch import gguf_model, hub
from stages.fetch.manifest import Manifest, ModelEntry
from stages.fetch.origins import Origins

_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_TEXTS = re.compile(r"(?!pytorch_model).*\.json|tokenizer\.model|merges\.txt|vocab\.txt|chat_template\.jinja")
_PICKLED = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle)")
_TOKENIZERS = ({"tokenizer.json"}, {"tokenizer.model"}, {"vocab.json", "merges.txt"})
_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@(.*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_UNSTATED = "not stated here; see the model's own card"


def fetch_base(model: str, manifest: Manifest, origins: Origins, out: Path) -> None:
    """Write the base model to the folder `out`, with SOURCE.json.

    Args:
        model: a model of the manifest, a local folder, or `owner/name@commit`.
        manifest: what can be fetched.
        origins: where from.
        out: the output folder. After an error it is as it was.

    Raises:
        UnknownName: no such model.
        Unavailable, HashMismatch: no origin has it as pinned.
        MissingFile: the folder or repository lacks a file of a model.
        FairgateError: the model has no safetensors weights, or is quantized already.
    """
    with atomic_folder(out) as folder:
        if model in manifest.models:
            source = _from_manifest(model, manifest.models[model], origins, folder)
        elif Path(model).expanduser().is_dir():
            source = _from_folder(Path(model).expanduser(), folder)
        else:
            source = _from_hub(_repository(model, manifest), origins.cache / "hub", folder)
        check_model(folder, where=model)
        files = {p.name: {"sha256": sha256_file(p), "bytes": p.stat().st_size} for p in sorted(folder.iterdir()) if p.name != "SOURCE.json"}
        write_json(folder / "SOURCE.json", {"schema": 1, "files": files, **source})
        size = sum(path.stat().st_size for path in folder.iterdir())
    log.info("base model %s: %.0f MB", model, size / 1e6)


def check_model(folder: Path, *, where: str) -> None:
    """Raise FairgateError unless `folder` holds a whole unquantized model.

    It needs a configuration, a tokenizer and safetensors weights.

    Args:
        folder: the model's folder.
        where: what the user called it, for the message.
    """
    _check_names([path.name for path in folder.iterdir()], where)
    _check_config(folder, where)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(read_json(index).get("weight_map", {}).values())
        absent = sorted(name for name in shards if not (folder / name).is_file())
        if absent:
            raise MissingFile(f"no shard {absent[0]}", where=where, remedy="copy or download the whole model")
    weights = sorted(path for path in folder.iterdir() if _WEIGHTS.fullmatch(path.name))
    require_whole_weights(weights, remedy="copy it again", model=where)


def _from_manifest(name: str, entry: ModelEntry, origins: Origins, folder: Path) -> dict[str, Any]:
    source: dict[str, Any] = {"licence": entry.licence, "attribution": entry.attribution, "model": name, "source": entry.source}
    with tempfile.TemporaryDirectory(prefix=".origin.", dir=folder.parent) as temporary:
        origin = origins.copy_from_first(name, entry.origins, Path(temporary), kind="model")
        copied = sorted(Path(temporary).iterdir())
        source |= {"origin": origins.describe(origin), "pinned": {name: file.sha256 for name, file in origin.files.items()}}
        if origin.convert == "gguf":
            # float16 takes about four times what the 4-bit file takes
            require_space(folder, 4 * copied[0].stat().st_size, what=f"the converted model {name}")
            stored = gguf_model.convert(copied[0], folder)
            return source | {"converted": {"from": "gguf", "stored_as": stored, "written_as": "float16"}}
        for path in copied:
            path.replace(folder / path.name)
    return source


def _from_folder(path: Path, folder: Path) -> dict[str, Any]:
    """Copy the files of the model.

    They are never linked: DVC takes write permission from what it caches, and the original is the
    user's.
    """
    check_model(path, where=str(path))
    originals = [file for file in sorted(path.iterdir()) if file.is_file() and _belongs(file.name)]
    require_space(folder, sum(file.stat().st_size for file in originals), what=f"a copy of {path}")
    for file in originals:
        shutil.copyfile(file, folder / file.name)
    return {"licence": _UNSTATED, "attribution": _UNSTATED, "model": path.name, "origin": {"kind": "path"}}


def _from_hub(repository: hub.Repository, cache: Path, folder: Path) -> dict[str, Any]:
    listing = hub.listing(repository)
    names = [name for name in listing.files if _belongs(name)]
    _check_names(listing.files, str(repository))
    # The configuration first: a model that is refused for it costs no download of weights.
    for group in (["config.json"], [name for name in names if name != "config.json"]):
        hub.download(repository, listing.files, {name: name for name in group}, folder, cache)
        _check_config(folder, str(repository))
    return {
        "licence": listing.licence or _UNSTATED,
        "attribution": repository.name,
        "model": repository.name,
        "origin": {"kind": "hub", "repository": repository.name, "revision": repository.revision},
    }


def _repository(model: str, manifest: Manifest) -> hub.Repository:
    if model.startswith(("/", "./", "../", "~")):
        raise MissingFile("no such folder", where=model, remedy="give a folder that holds a Hugging Face model")
    match = _HUB_ID.fullmatch(model)
    if match is None:
        raise UnknownName.of("model", model, manifest.models, where="params.yaml:model")
    name, commit = match.groups()
    if commit is None or not _COMMIT.fullmatch(commit):
        raise FairgateError(
            f"{model!r} is no folder here, and as a hub id it is not pinned",
            where="params.yaml:model",
            remedy=f"name the commit, 40 hexadecimal digits: {name}@<commit> (branches and tags move)",
        )
    return hub.Repository(name, commit)


def _belongs(name: str) -> bool:
    return bool(_WEIGHTS.fullmatch(name) or _TEXTS.fullmatch(name)) and "/" not in name


def _check_names(names: Iterable[str], where: str) -> None:
    held = set(names)
    if "config.json" not in held:
        raise MissingFile("no config.json", where=where, remedy="give a folder or repository that holds a Hugging Face model")
    if not any(_WEIGHTS.fullmatch(name) for name in held):
        pickled = sorted(name for name in held if _PICKLED.fullmatch(name))
        if pickled:
            raise FairgateError(
                f"pickled weights ({pickled[0]}), and no safetensors",
                where=where,
                remedy="loading a pickle runs its code, so it is never loaded here; "
                "convert the model in a place you trust: `save_pretrained` writes safetensors",
            )
        raise MissingFile("no model.safetensors", where=where, remedy="give a folder or repository with safetensors weights")
    if not any(needed <= held for needed in _TOKENIZERS):
        raise MissingFile("no tokenizer", where=where, remedy="it needs tokenizer.json, tokenizer.model, or vocab.json and merges.txt")


def _check_config(folder: Path, where: str) -> None:
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise BadRecord("config.json is not a mapping", where=where)
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else "unknown"
        raise FairgateError(f"this model is already quantized ({method})", where=where, remedy="name the unquantized model behind it")
