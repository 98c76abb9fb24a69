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

from fairgate.model_folder.architecture import read_config
from fairgate.model_folder.check import check_folder
from fairgate.model_folder.files import (
    CONFIG,
    INDEX,
    model_names,
    quantized,
    read_index,
    require_config,
    require_tokenizer,
    require_weights,
)
from fairgate.model_folder.findings import Report
from fairgate.support.digests import sha256_file
from fairgate.support.disk import require_space
from fairgate.support.errors import FairgateError, MissingFile, UnknownName
from fairgate.support.files import atomic_folder, write_json
from fairgate.support.log import log
from stages.fetch import gguf_model, hub
from stages.fetch.manifest import Manifest, ModelEntry
from stages.fetch.origins import Origins

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
        FairgateError: the model is unfit (`fairgate.model_folder.check`).
    """
    report = None
    with atomic_folder(out) as folder:
        if model in manifest.models:
            source = _from_manifest(model, manifest.models[model], origins, folder)
        elif (path := Path(model).expanduser()).is_dir():
            report = _checked(path, model)  # before gigabytes are copied
            source = _from_folder(path, folder)
        else:
            source = _from_hub(_repository(model, manifest), origins.cache / "hub", folder)
        report = report or _checked(folder, model)
        files = {p.name: {"sha256": sha256_file(p), "bytes": p.stat().st_size} for p in sorted(folder.iterdir()) if p.name != "SOURCE.json"}
        write_json(folder / "SOURCE.json", {"schema": 1, "files": files, **source})
        size = sum(path.stat().st_size for path in folder.iterdir())
    for known in report.notes:
        log.warning("%s: %s", model, known)
    log.info("base model %s: %.0f MB", model, size / 1e6)


def _checked(folder: Path, model: str) -> Report:
    report = check_folder(folder, where=model)
    report.require_fit()
    return report


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
    names = model_names(sorted(file.name for file in path.iterdir() if file.is_file()), read_index(path), str(path))
    require_space(folder, sum((path / name).stat().st_size for name in names), what=f"a copy of {path}")
    for name in names:
        shutil.copyfile(path / name, folder / name)
    return {"licence": _UNSTATED, "attribution": _UNSTATED, "model": path.name, "origin": {"kind": "path"}}


def _from_hub(repository: hub.Repository, cache: Path, folder: Path) -> dict[str, Any]:
    listing = hub.listing(repository)
    require_config(listing.files, str(repository))
    require_weights(listing.files, str(repository))
    require_tokenizer(listing.files, str(repository))

    def download(names: Iterable[str]) -> None:
        hub.download(repository, listing.files, {name: name for name in names}, folder, cache)

    # The small files first: a model that is refused for them costs no download of weights.
    download([CONFIG, *([INDEX] if INDEX in listing.files else [])])
    if refusal := next(quantized(folder), None):
        raise refusal
    read_config(folder)
    download(name for name in model_names(listing.files, read_index(folder), str(repository)) if not (folder / name).exists())
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
