"""Matrix products that use a GPU's tensor cores without losing digits. On a CPU they are plain.

The product of two 16-bit numbers is exact in float32, so X^T X of bfloat16 activations differs from
the exact one in the order of its sums alone. A float32 matrix is the sum of two bfloat16 matrices
up to 2^-17 of each entry, and three of their four products hold all that matters. Symmetric and
triangular matrices are computed panel by panel, without the half that is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

PANELS = 4  # 5/8 of a full product's work; narrower panels would not fill the tensor cores
LEAF = 2048  # the library inverts triangular matrices up to this size
HALF = 2.0**14  # largest entry of a float16 matrix after scaling, well below the type's 65,504


def add_gram(total: Tensor | None, X: Tensor) -> Tensor:
    """total + X^T X.

    On a GPU the entries far below the diagonal are left out; `fill_lower` adds them at the end.

    Args:
        total: [d, d] float32, changed in place. None means zero.
        X: [n, d]. If it is 16 bits wide, every single product is exact.
    Returns:
        [d, d] float32.
    """
    if not X.is_cuda:
        X = X.float()
        return X.T @ X if total is None else total.addmm_(X.T, X)
    total = X.new_zeros(X.shape[1], X.shape[1], dtype=torch.float32) if total is None else total
    left, right = X, X
    if X.dtype is torch.float32:
        high, low = split(X)
        left, right = torch.cat((high, high, low)), torch.cat((high, low, high))
    for start, stop in _panels(X.shape[1]):
        _add_product(total[:stop, start:stop], left[:, :stop].T, right[:, start:stop])
    return total


def add_difference_gram(total: Tensor | None, D: Tensor) -> Tensor:
    """total + D^T D of float32 differences D [n, d] of 16-bit activations.

    On a GPU every entry is scaled by one power of two, so that the largest fits, and rounded to
    float16. Its 11 bits hold the difference of two bfloat16 numbers of like size exactly. Numbers
    of unlike size leave an unbiased error of 2^-12 of the entry, and what the tensor cores cut off
    is larger than the sum of these errors.
    """
    if not D.is_cuda:
        return add_gram(total, D)
    total = D.new_zeros(D.shape[1], D.shape[1]) if total is None else total
    D, scale = _halved(D)
    for start, stop in _panels(D.shape[1]):
        part = torch.mm(D[:, :stop].T, D[:, start:stop], out_dtype=torch.float32)
        total[:stop, start:stop].addcmul_(part, scale.square())
    return total


def fill_lower(gram: Tensor) -> Tensor:
    """Fill in, in place, the entries below the diagonal that `add_gram` left out."""
    if gram.is_cuda:
        for start, stop in _panels(len(gram)):
            gram[stop:, start:stop] = gram[start:stop, stop:].T
    return gram


def matmul(x: Tensor, y: Tensor, *, right: Literal["full", "upper", "lower"] = "full", left_is_weight: bool = False) -> Tensor:
    """x @ y in float32. The relative error is 2^-16 on a GPU and that of float32 elsewhere.

    Args:
        x: [m, k] float32.
        y: [k, n] float32.
        right: the shape of y, square if it is triangular. Its zeros are not multiplied.
        left_is_weight: x is a weight, and probably holds bfloat16 numbers alone. If it does, a
            third of the work is saved.
    """
    if not x.is_cuda:
        return x @ y
    x_high, x_low = split(x)
    y_high, y_low = split(y)
    exact = left_is_weight and not x_low.any()
    out = x.new_empty(x.shape[0], y.shape[1])
    for start, stop in [(0, y.shape[1])] if right == "full" else _panels(y.shape[1]):
        rows = {"full": slice(None), "upper": slice(stop), "lower": slice(start, None)}[right]
        part = torch.mm(x_high[:, rows], y_high[rows, start:stop], out_dtype=torch.float32)
        _add_product(part, x_high[:, rows], y_low[rows, start:stop])
        if not exact:
            _add_product(part, x_low[:, rows], y_high[rows, start:stop])
        out[:, start:stop] = part
    return out


def coarse_matmul(x: Tensor, y: Tensor) -> Tensor:
    """x @ y for reports: on a GPU in float16, with an unbiased error of 2^-12 of each entry."""
    if not x.is_cuda:
        return x @ y
    (x, x_scale), (y, y_scale) = _halved(x), _halved(y)
    return torch.mm(x, y, out_dtype=torch.float32).mul_(x_scale * y_scale)


def inverse_upper(R: Tensor) -> Tensor:
    """Inverse of upper triangular R [d, d] float32.

    On a GPU by halves, which is a third of the work of solving for the identity:

    [R1 S; 0 R2]^-1 = [R1^-1, -R1^-1 S R2^-1; 0, R2^-1]
    """
    d = len(R)
    if not R.is_cuda or d <= LEAF:
        return torch.linalg.solve_triangular(R, torch.eye(d, dtype=R.dtype, device=R.device), upper=True)
    half = d // 256 * 128
    first, second = inverse_upper(R[:half, :half]), inverse_upper(R[half:, half:])
    inverse = R.new_zeros(d, d)
    inverse[:half, :half], inverse[half:, half:] = first, second
    inverse[:half, half:] = matmul(matmul(-first, R[:half, half:]), second, right="upper")
    return inverse


def split(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix as the sum of two bfloat16 matrices, the second about 2^-8 of the first."""
    high = matrix.bfloat16()
    return high, torch.sub(matrix, high, out=torch.empty_like(high))


def _halved(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix as a float16 matrix times a power of two.

    The power is a scalar on the matrix's device, so that nothing waits for the GPU.
    """
    low, high = matrix.aminmax()
    scale = torch.exp2(torch.ceil(torch.log2(torch.maximum(-low, high).clamp(min=1e-30) / HALF)))
    return torch.div(matrix, scale, out=torch.empty_like(matrix, dtype=torch.float16)), scale


def _add_product(total: Tensor, x: Tensor, y: Tensor) -> None:
    """total += x @ y of 16-bit matrices, summed in float32."""
    torch.addmm(total, x, y, out_dtype=torch.float32, out=total)


def _panels(d: int) -> Iterator[tuple[int, int]]:
    """Start and stop column of every panel. The widths suit the tiles of the tensor cores."""
    width = -(-d // (PANELS * 128)) * 128
    return ((start, min(start + width, d)) for start in range(0, d, width))
