"""Allocation failures, told from other errors."""

from __future__ import annotations

import torch


def out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU (which torch tells apart by words alone)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
