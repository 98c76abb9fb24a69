"""Tensors from a GPU into main memory, and from there into a file, beside the work of another
thread: neither holds the interpreter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairgate.support.files import atomic_path

_TYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}
CHUNK = 2**25  # bytes of page-locked memory; to lock room for all hidden states would take as long as a block


class Unwanted(Exception):
    """What was being written is needed no more."""


def save(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None, wanted: Callable[[], bool] = lambda: True
) -> None:
    """Write a safetensors file, whole or not at all, straight from the tensors' memory (save_file
    of 0.8 takes nine times as long).

    Args:
        wanted: asked before every tensor. Raises: Unwanted where it says no.
    Source:
        https://github.com/huggingface/safetensors#format
    """
    # Wide numbers first, so that each lies where its type may be read.
    parts = sorted(tensors.items(), key=lambda item: -item[1].itemsize)
    header: dict[str, Any] = {"__metadata__": {key: str(value) for key, value in (metadata or {}).items()}}
    end = 0
    for name, tensor in parts:
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in parts:
            if not wanted():
                raise Unwanted
            file.write(_bytes(tensor.cpu()).numpy().data)


def ready(tensors: Iterable[Tensor]) -> list[torch.cuda.Event]:
    """What to wait for until all that the caller's streams were told so far is done, on every GPU
    that holds one of `tensors`.
    """
    return [torch.cuda.current_stream(device).record_event() for device in {tensor.device for tensor in tensors if tensor.is_cuda}]


def fetch(states: Sequence[Tensor], into: list[Tensor]) -> list[Tensor]:
    """The tensors, all on GPUs, in main memory: `into` where it has their shapes, new memory
    otherwise; on streams of its own.

    They go through a small page-locked buffer: a copy to other memory holds up what another thread
    launches.
    """
    if [(state.shape, state.dtype) for state in states] != [(own.shape, own.dtype) for own in into]:
        into = [torch.empty(state.shape, dtype=state.dtype) for state in states]
    locked = torch.empty(CHUNK, dtype=torch.uint8, pin_memory=True)
    for state, own in zip(states, into, strict=True):
        with torch.cuda.device(state.device), torch.cuda.stream(torch.cuda.Stream()):
            for part, target in zip(_bytes(state).split(CHUNK), _bytes(own).split(CHUNK), strict=True):
                locked[: len(part)].copy_(part, non_blocking=True)
                torch.cuda.current_stream().synchronize()
                target.copy_(locked[: len(part)])
    return into


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)
