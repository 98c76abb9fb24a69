"""The tensors of a model folder: which file holds which, in which type and shape."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from fairgate.model_folder.files import INDEX, already_quantized, listed_in, read_index, weight_names
from fairgate.support.digests import sha256_file, sha256_json
from fairgate.support.errors import BadRecord, FairgateError

if TYPE_CHECKING:
    from torch import Tensor

_FLOATS = ("F64", "F32", "F16", "BF16")
# How the libraries name what they add to a quantized matrix: GPTQ and AWQ, compressed-tensors, FP8;
# bitsandbytes; HQQ, quanto, AQLM, Marlin.
_PACKED = (
    *(".qweight", ".qzeros", ".weight_packed", ".weight_scale", ".weight_scale_inv"),
    *(".absmax", ".SCB", ".quant_map"),
    *(".W_q", "._data", ".codes", ".codebooks", ".B"),
)
_WHOLE = "copy or download the whole model"


@dataclass(frozen=True)
class Stored:
    """A tensor as a file holds it.

    file: name in the folder. dtype: as safetensors names it. shape: lengths of its axes.
    """

    file: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        size = 1
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class Weights:
    """The weights of a model folder, of which only the headers were read.

    folder: where they are.
    files: names of the files that hold them.
    ignored: names of other safetensors files in the folder. Nothing reads them.
    tensors: every tensor by its stored name.
    """

    folder: Path
    files: tuple[str, ...]
    ignored: tuple[str, ...]
    tensors: Mapping[str, Stored]

    @property
    def bytes(self) -> int:
        """Bytes of the files."""
        return sum((self.folder / name).stat().st_size for name in self.files)

    @contextmanager
    def opened(self) -> Iterator[OpenWeights]:
        """The weights, to read tensors from. Files are opened when they are first needed."""
        with ExitStack() as stack:
            yield OpenWeights(self, stack)


class OpenWeights:
    """Open files of a model's weights."""

    def __init__(self, weights: Weights, stack: ExitStack) -> None:
        self._weights, self._stack = weights, stack
        self._files: dict[str, Any] = {}

    def tensor(self, name: str) -> Tensor:
        """The tensor of a stored name, in its stored type, in main memory.

        Raises:
            BadRecord: the folder holds no such tensor.
        """
        if name not in self._weights.tensors:
            raise BadRecord(f"no tensor {name}", where=str(self._weights.folder), remedy=_WHOLE)
        file = self._weights.tensors[name].file
        if file not in self._files:
            self._files[file] = self._stack.enter_context(safe_open(self._weights.folder / file, framework="pt"))
        tensor: Tensor = self._files[file].get_tensor(name)
        return tensor


def read_weights(folder: Path, *, where: str = "", remedy: str = _WHOLE) -> Weights:
    """Read the headers of a folder's weights.

    Args:
        folder: the model folder.
        where: what the user calls it. Empty means the folder's path.
        remedy: what the message on a damaged file advises.

    Raises:
        MissingFile: no weights, or a shard is missing.
        BadRecord: a file is cut short, or index and shards contradict each other.
        FairgateError: two models in one folder.
    """
    where = where or str(folder)
    index = read_index(folder)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    files = weight_names(names, index, where)
    tensors: dict[str, Stored] = {}
    for name in files:
        for tensor, stored in _header(folder / name, f"{where}/{name}", remedy).items():
            if tensor in tensors:
                what = f"tensor {tensor} stands in {tensors[tensor].file} and in {name}"
                raise BadRecord(what, where=where, remedy=_WHOLE)
            tensors[tensor] = stored
    _require_index(tensors, listed_in(index, where), where)
    ignored = sorted(name for name in names if name.endswith(".safetensors") and name not in files)
    return Weights(folder, tuple(files), tuple(ignored), tensors)


def quantized_tensors(weights: Weights) -> Iterator[FairgateError]:
    """The first tensor, if any, that shows that the weights are quantized already."""
    for name, stored in weights.tensors.items():
        packed = name.endswith(_PACKED)
        if packed or stored.dtype.startswith(("F8", "F4")) or (name.endswith("weight") and stored.dtype not in _FLOATS):
            yield already_quantized("its tensors" if packed else stored.dtype, f"{stored.file}, {name}")
            return


def weight_digest(folder: Path | str) -> str:
    """sha256 over the sorted (name, sha256) of the files that hold a folder's weights.

    Other files beside them do not change it.
    """
    folder = Path(folder)
    files = weight_names({path.name for path in folder.iterdir() if path.is_file()}, read_index(folder), str(folder))
    return sha256_json({name: sha256_file(folder / name) for name in files})


def _header(path: Path, where: str, remedy: str) -> dict[str, Stored]:
    with path.open("rb") as file:
        if file.read(7) == b"version":
            raise BadRecord("a Git LFS pointer instead of the weights", where=where, remedy="run `git lfs pull` where it was cloned")
    try:
        with safe_open(path, framework="np") as opened:  # checks that the file is as long as its header says
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  (safe_open is no dict)
            return {name: Stored(path.name, part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise BadRecord(f"not a whole safetensors file ({error})", where=where, remedy=remedy) from None


def _require_index(tensors: Mapping[str, Stored], listed: Mapping[str, str], where: str) -> None:
    """Raise BadRecord unless index and shards name the same tensors in the same files."""
    if not listed:
        return
    held = {name: stored.file for name, stored in tensors.items()}
    for name in sorted(held.keys() | listed.keys()):
        if held.get(name) != listed.get(name):
            what = f"tensor {name} is in {held.get(name, 'no shard')}, the index says {listed.get(name, 'nothing of it')}"
            raise BadRecord(what, where=f"{where}/{INDEX}", remedy=f"index and shards are of different uploads: {_WHOLE}")
