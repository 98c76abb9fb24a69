"""D = M X, the differences between the two sides of all pairs.

On a GPU they are taken straight from the 16-bit activations, in one pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.quantize.core.pairs import Batch

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for CPUs brings none
    triton = None

CHANNELS = 1024  # that one program of the kernel works on


def differences(batch: Batch, X: Tensor) -> Tensor:
    """D [m, d] float32 of X [rows * L, d], one row per row of the batch's M.

    Every row is summed in the order of its tokens.
    """
    assert batch.M is not None
    if triton is None or not X.is_cuda:
        return torch.sparse.mm(batch.M, X.float())
    return differences_triton(batch, X)


def differences_triton(batch: Batch, X: Tensor) -> Tensor:
    """`differences` by the kernel, on a device that Triton compiles for."""
    starts, columns, weights = batch.compressed
    m, d = len(starts) - 1, X.shape[1]
    D = torch.empty(m, d, device=X.device)
    with torch.cuda.device_of(X):
        _rows[(m, triton.cdiv(d, CHANNELS))](X.contiguous(), starts, columns, weights, D, d, CHANNELS=CHANNELS)
    return D


if triton is not None:

    @triton.jit
    def _rows(X, starts, columns, weights, D, d, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
        row = tl.program_id(0).to(tl.int64)
        channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
        inside = channel < d
        total = tl.zeros((CHANNELS,), tl.float32)
        for k in range(tl.load(starts + row), tl.load(starts + row + 1)):
            token = tl.load(columns + k)
            total += tl.load(weights + k) * tl.load(X + token * d + channel, mask=inside, other=0.0).to(tl.float32)
        tl.store(D + row * d + channel, total, mask=inside)
