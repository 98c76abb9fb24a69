"""The mathematics written for clarity: float64, explicit inverses, one column at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.quantize.core.grid import Grid


def damp(A: Tensor, damping: float) -> Tensor:
    return A + damping * A.diagonal().mean() * torch.eye(len(A), dtype=A.dtype)


def target(W: Tensor, H: Tensor, B: Tensor, mode: str, damping: float) -> tuple[Tensor, Tensor]:
    """W' and the Hessian of the loop, by the formulas of the method's table."""
    Hd, Td = damp(H, damping), damp(H + B, damping)
    if mode == "exact":
        return W - W @ B @ Td.inverse(), Td
    if mode == "authors":
        return W - W @ B @ Hd.inverse(), Hd
    if mode == "authors-sum":
        return W - W @ B @ Td.inverse(), Hd
    return W, Td


def gptq(W: Tensor, A: Tensor, grid: Grid, static: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
    """OBQ column by column: after each column the remaining ones take the optimal update under A, from the explicit inverse.

    `static`: scale, zero [r, groups] and the group of each column, fixed beforehand.
    """
    W = W.clone()
    d = W.shape[1]
    width = grid.width(d)
    Q = torch.zeros_like(W)
    scale = zero = torch.zeros(len(W), dtype=W.dtype)
    for j in range(d):
        if static is not None:
            scale, zero = (values[:, static[2][j]] for values in static[:2])
        elif j % width == 0:
            s, z = grid.fit(W[:, j : j + width].float())
            scale, zero = s.double(), z.double()
        Q[:, j] = scale * (grid.codes(W[:, j], scale, zero) - zero)
        inverse = A[j:, j:].inverse()
        error = (W[:, j] - Q[:, j]) / inverse[0, 0]
        W[:, j:] -= error[:, None] * inverse[0][None, :]
    return Q


def problem(r: int = 12, d: int = 32, n: int = 96, pairs: int = 20, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W [r, d], H, C [d, d] and X [n, d] in float64, with correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, dtype=torch.float64, generator=generator) / d**0.5
    X = torch.randn(n, d, dtype=torch.float64, generator=generator) @ mix
    D = torch.randn(pairs, d, dtype=torch.float64, generator=generator) @ mix
    W = torch.randn(r, d, dtype=torch.float64, generator=generator)
    return W, 2 * X.T @ X / n, D.T @ D, X
