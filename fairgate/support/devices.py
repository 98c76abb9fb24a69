"""Where a stage computes, in which data type and how much at once; and allocation failures."""

from __future__ import annotations

from typing import Literal

import torch

from fairgate.support.errors import FairgateError


def pick_device(name: str, *, parameter: str) -> torch.device:
    """The device of that name: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.

    Args:
        parameter: where the name comes from, for the error.
    Raises:
        FairgateError: a GPU is asked for and torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise FairgateError(f"device {name!r}, but torch sees no GPU", where=parameter, remedy="use `auto` or `cpu`")
    return torch.device(name)


def pick_dtype(name: str, device: torch.device, *, native: bool = False) -> torch.dtype:
    """The data type of that name, as torch spells it.

    `auto` is bfloat16 on a GPU and float32 on a CPU.

    Args:
        native: `auto` is bfloat16 on a CPU too, where the CPU has instructions for it. Without them
            bfloat16 is emulated, which is slower than float32.
    """
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    fast = device.type == "cuda" or (native and torch.cpu._is_avx512_bf16_supported())
    return torch.bfloat16 if fast else torch.float32


def pick_batch_tokens(number: int | Literal["auto"], device: torch.device) -> int:
    """Tokens of one forward pass; `auto` keeps a GPU busy and fits a CPU's caches."""
    if number == "auto":
        return 65536 if device.type == "cuda" else 2048
    return number


def out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; on the CPU torch says so by its message alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
