"""Products of tall and square matrices; on a GPU on its tensor cores, without their loss of digits.

A product of two 16-bit numbers is exact in float32, so X^T X of bfloat16 activations loses nothing but the order of its sums. A float32
matrix is the sum of two bfloat16 ones up to 2^-17 of each entry, and three of their four products hold all that matters. What is
symmetric or triangular is computed panel by panel, without the part that is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

PANELS = 4  # 5/8 of the work of a whole product; more would make them too narrow for the tensor cores
LEAF = 2048  # triangular matrices up to this size are inverted by the library
HALF = 2.0**14  # largest entry of a float16 matrix after scaling, well below the type's 65,504


def add_gram(total: Tensor | None, X: Tensor) -> Tensor:
    """total + X^T X [d, d] float32 of X [n, d], in place where there is a total. Exact products where X is 16 bits wide.

    On a GPU the entries far below the diagonal are left out: `fill_lower` fills them in once all sums are made.
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
    """The same of float32 differences D [n, d] of 16-bit activations; on a GPU each entry rounded to float16.

    Scaled by a power of two the largest entry fits, and 11 bits hold the difference of two bfloat16 numbers of like size exactly; where
    they differ in size the error is 2^-12 of the entry, without a sign, and what the tensor cores cut off is more than its sum.
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
    """A sum of `add_gram` with all its entries, in place."""
    if gram.is_cuda:
        for start, stop in _panels(len(gram)):
            gram[stop:, start:stop] = gram[start:stop, stop:].T
    return gram


def matmul(x: Tensor, y: Tensor, *, right: Literal["full", "upper", "lower"] = "full", left_is_weight: bool = False) -> Tensor:
    """x @ y in float32, of float32 x [m, k] and y [k, n]. Relative error 2^-16 on a GPU, that of float32 elsewhere.

    Args:
        right: the shape of y, which is square if it is triangular: its zeros are not multiplied.
        left_is_weight: x may well hold nothing but bfloat16 numbers, as weights do; then a third of the work is not done.
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
    """x @ y for what is only reported: on a GPU both in float16, relative error 2^-12 of single entries, without a sign."""
    if not x.is_cuda:
        return x @ y
    (x, x_scale), (y, y_scale) = _halved(x), _halved(y)
    return torch.mm(x, y, out_dtype=torch.float32).mul_(x_scale * y_scale)


def inverse_upper(R: Tensor) -> Tensor:
    """Inverse of upper triangular R [d, d] float32; on a GPU by halves, a third of the work of solving for the identity.

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
    """The matrix as the sum of two bfloat16 ones, the second 2^-8 of the first."""
    high = matrix.bfloat16()
    return high, torch.sub(matrix, high, out=torch.empty_like(high))


def _halved(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix as a float16 one times a power of two (a scalar on its device, so that nothing waits for it)."""
    low, high = matrix.aminmax()
    scale = torch.exp2(torch.ceil(torch.log2(torch.maximum(-low, high).clamp(min=1e-30) / HALF)))
    return torch.div(matrix, scale, out=torch.empty_like(matrix, dtype=torch.float16)), scale


def _add_product(total: Tensor, x: Tensor, y: Tensor) -> None:
    """total += x @ y of 16-bit matrices, summed in float32."""
    torch.addmm(total, x, y, out_dtype=torch.float32, out=total)


def _panels(d: int) -> Iterator[tuple[int, int]]:
    """First column and the one behind the last of every panel; the widths suit the tensor cores' tiles."""
    width = -(-d // (PANELS * 128)) * 128
    return ((start, min(start + width, d)) for start in range(0, d, width))
