"""Where a run computes: its devices, the locks that keep others off them, and what CUDA must know
beforehand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from fairgate.support.errors import FairgateError
from fairgate.support.locks import locked


def make_products_reproducible() -> None:
    """Have cuBLAS use the same memory, and so the same order of sums, in every run.

    The library reads this when the first matrix product runs on a GPU: call it before.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pick_others(device: torch.device, gpus: int) -> tuple[torch.device, ...]:
    """The GPUs beside the first; FairgateError where there are fewer than `gpus`."""
    available = torch.cuda.device_count() if device.type == "cuda" else 1
    if gpus > available:
        what = f"{gpus} GPUs asked for, {available} to be had on {device.type!r}"
        raise FairgateError(what, where="quantize.gpus", remedy=f"set it to {available} or less")
    return tuple(torch.device("cuda", number) for number in range(1, gpus))


@contextmanager
def device_locks(device: torch.device, gpus: int) -> Iterator[None]:
    """One quantization per GPU, on the whole machine."""
    with ExitStack() as stack:
        for number in range(gpus if device.type == "cuda" else 0):
            # Its own name, not its number: two processes may each be shown one GPU, which is number
            # 0 to both.
            stack.enter_context(locked(Path(".fairgate") / f"gpu-{torch.cuda.get_device_properties(number).uuid}.lock"))
        yield
