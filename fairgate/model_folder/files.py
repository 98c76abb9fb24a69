"""Which files of a folder or repository are the model. Names and small files alone are read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fairgate.support.errors import BadRecord, FairgateError, MissingFile
from fairgate.support.files import read_json

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
# What transformers reads beside the weights. Other files are not the model's.
_TEXTS = {
    *(f"{name}.json" for name in ("added_tokens", "chat_template", "config", "generation_config", "special_tokens_map")),
    *(f"{name}.json" for name in ("tokenizer", "tokenizer_config", "vocab")),
    *("chat_template.jinja", "merges.txt", "tokenizer.model", "vocab.txt"),
}
_PICKLED = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle)")
_TOKENIZERS = ({"tokenizer.json"}, {"tokenizer.model"}, {"vocab.json", "merges.txt"})
_LFS = b"version https://git-lfs.github.com/spec/"
_WHOLE = "copy or download the whole model"
# What a quantizer leaves beside the weights, or writes into config.json.
_RECORDS = ("quantize_config.json", "quant_config.json", "hf_quant_config.json", "quant_model_description.json")
_KEYS = ("quantization_config", "compression_config", "quantization")
# Keys by which transformers loads other files than every other reader of the folder.
_REDIRECTIONS = {CONFIG: ("transformers_weights", "configuration_files"), "tokenizer_config.json": ("fast_tokenizer_files",)}


def text_names(names: Iterable[str]) -> list[str]:
    """Names of the files that belong to a model beside its weights, sorted."""
    return sorted(_TEXTS.intersection(names))


def require_config(names: Iterable[str], where: str) -> None:
    """Raise unless there is a configuration among the names of a folder or repository.

    Args:
        names: of the files.
        where: what the user calls the model.

    Raises:
        MissingFile: no configuration.
        FairgateError: an adapter.
    """
    held = set(names)
    if CONFIG in held:
        return
    if "adapter_config.json" in held:
        remedy = "merge it into its base model (peft: `merge_and_unload`), save that, and give its folder"
        raise FairgateError("an adapter, and no model", where=where, remedy=remedy)
    raise MissingFile(f"no {CONFIG}", where=where, remedy="give a folder or repository that holds a Hugging Face model")


def require_weights(names: Iterable[str], where: str) -> None:
    """Raise unless there are safetensors weights among the names.

    Args:
        names: of the files.
        where: what the user calls the model.

    Raises:
        MissingFile: no weights.
        FairgateError: weights that are pickled or in another format.
    """
    held = set(names)
    if not any(name in (SINGLE, INDEX) or _SHARD.fullmatch(name) for name in held):
        _refuse_other_weights(held, where)


def require_tokenizer(names: Iterable[str], where: str) -> None:
    """Raise MissingFile unless there is a tokenizer among the names of a folder or repository."""
    held = set(names)
    if not any(needed <= held for needed in _TOKENIZERS):
        raise MissingFile("no tokenizer", where=where, remedy="it needs tokenizer.json, tokenizer.model, or vocab.json and merges.txt")


def weight_names(names: Collection[str], index: Any, where: str) -> list[str]:
    """Names of the files that hold the weights, sorted.

    The index decides. Without one it is `model.safetensors`.

    Args:
        names: of the files in the folder or repository.
        index: content of `model.safetensors.index.json`. None means there is none.
        where: what the user calls the model.

    Raises:
        BadRecord: the index names no files, or files elsewhere.
        MissingFile: a file of the index is not there, or the index of several shards.
        FairgateError: an index, and a `model.safetensors` that it does not list.
    """
    if index is None:
        if SINGLE in names:
            return [SINGLE]
        shards = sorted(name for name in names if _SHARD.fullmatch(name))
        if not shards:
            raise MissingFile(f"no {SINGLE}", where=where, remedy="give a folder or repository with safetensors weights")
        remedy = f"{_WHOLE}, with the index: it says which shards belong together"
        raise MissingFile(f"shards ({shards[0]}) and no {INDEX}", where=where, remedy=remedy)
    listed = sorted(set(_map_of(index, where).values()))
    if SINGLE in names and listed != [SINGLE]:
        remedy = f"remove the one that is not the model: transformers loads {SINGLE} and ignores the index"
        raise FairgateError(f"two models: {SINGLE}, and the files of {INDEX}", where=where, remedy=remedy)
    if absent := [name for name in listed if name not in names]:
        raise MissingFile(f"no shard {absent[0]}", where=where, remedy=_WHOLE)
    return listed


def model_names(names: Collection[str], index: Any, where: str) -> list[str]:
    """Names of all files of the model: those of the weights, their index, and the texts."""
    weights = weight_names(names, index, where)
    return sorted([*weights, *text_names(names), *([INDEX] if INDEX in names else [])])


def read_index(folder: Path) -> Any:
    """Content of the folder's index; None if it has none."""
    path = folder / INDEX
    return read_json(path) if path.is_file() else None


def listed_in(index: Any, where: str) -> dict[str, str]:
    """File of each tensor by the index; empty without one."""
    return {} if index is None else _map_of(index, where)


def quantized(folder: Path) -> Iterator[FairgateError]:
    """Every sign beside the weights that they are quantized already."""
    config = _mapping(folder / CONFIG)
    for key in _KEYS:
        if config.get(key) is not None:
            settings = config[key]
            method = settings.get("quant_method", "unknown") if isinstance(settings, dict) else "unknown"
            yield already_quantized(str(method), f"{CONFIG}, {key}")
            return
    for name in _RECORDS:
        if (folder / name).is_file():
            yield already_quantized("unknown", name)
            return


def redirected(folder: Path) -> Iterator[FairgateError]:
    """Every key that sends transformers to other files than those that are read here."""
    for name, keys in _REDIRECTIONS.items():
        content = _mapping(folder / name) if (folder / name).is_file() else {}
        for key in keys:
            if content.get(key) is not None:
                what = f"{key} sends transformers to another file ({content[key]!r})"
                yield BadRecord(what, where=name, remedy=f"give that file the usual name, and remove {key}")


def already_quantized(method: str, where: str) -> FairgateError:
    """The refusal of a model that is no full-precision one."""
    return FairgateError(f"this model is already quantized ({method})", where=where, remedy="name the unquantized model behind it")


def broken_links(folder: Path) -> Iterator[FairgateError]:
    """Files of the model that are links to nothing, as in a cache that was cleaned."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not path.exists() and (path.name in _TEXTS or path.name in (SINGLE, INDEX) or _SHARD.fullmatch(path.name)):
            yield MissingFile("a link to a file that is gone", where=path.name, remedy="download or copy the model again")


def damaged_texts(folder: Path, names: Sequence[str]) -> Iterator[FairgateError]:
    """Files that are Git LFS pointers, no text or no JSON."""
    for name in names:
        if name in ("merges.txt", "vocab.txt") and "tokenizer.json" in names:
            continue  # nothing reads them then
        path = folder / name
        with path.open("rb") as file:
            pointer = file.read(len(_LFS)) == _LFS
        if pointer:
            yield BadRecord("a Git LFS pointer instead of the file", where=name, remedy="run `git lfs pull` where it was cloned")
        elif name.endswith(".json") and name != "generation_config.json":
            try:
                if name in _REDIRECTIONS and not isinstance(read_json(path), dict):
                    yield BadRecord(f"{name} is not a mapping", where=name, remedy=_WHOLE)
                else:
                    read_json(path)
            except FairgateError as error:
                yield BadRecord(error.what, where=name, remedy=_WHOLE)
        elif not name.endswith((".safetensors", ".model", ".json")):
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                yield BadRecord(f"no UTF-8 text ({error.reason} at byte {error.start})", where=name, remedy=_WHOLE)


def _mapping(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise BadRecord(f"{path.name} is not a mapping", where=path.name, remedy=_WHOLE)
    return content


def _map_of(index: Any, where: str) -> dict[str, str]:
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise BadRecord("no mapping `weight_map` from tensors to files", where=f"{where}/{INDEX}", remedy=_WHOLE)
    if not isinstance(index.get("metadata"), dict):  # transformers stops without it
        raise BadRecord("no mapping `metadata`", where=f"{where}/{INDEX}", remedy='add "metadata": {}')
    for name in files.values():
        if PurePosixPath(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            remedy = "a shard is a .safetensors file beside the index"
            raise BadRecord(f"{name!r} is no shard of this folder", where=f"{where}/{INDEX}", remedy=remedy)
    return files


def _refuse_other_weights(held: set[str], where: str) -> None:
    pickled = sorted(name for name in held if _PICKLED.fullmatch(name) and not name.startswith("training_args"))
    if pickled:
        raise FairgateError(
            f"pickled weights ({pickled[0]}), and no safetensors",
            where=where,
            remedy="loading a pickle runs its code, so it is never loaded here; "
            "convert the model in a place you trust: `save_pretrained` writes safetensors",
        )
    if converted := sorted(name for name in held if name.endswith((".gguf", ".onnx", ".msgpack", ".h5"))):
        raise FairgateError(f"weights in another format ({converted[0]})", where=where, remedy="give the safetensors version of the model")
    if others := sorted(name for name in held if name.endswith(".safetensors")):
        remedy = f"transformers loads {SINGLE} or the shards of {INDEX}: save the model with `save_pretrained`"
        raise MissingFile(f"no {SINGLE}, but {others[0]}", where=where, remedy=remedy)
    raise MissingFile(f"no {SINGLE}", where=where, remedy="give a folder or repository with safetensors weights")
