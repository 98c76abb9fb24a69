"""Products of tall and square matrices; on a GPU on its tensor cores, without their loss of digits.

A product of two bfloat16 numbers is exact in float32, so X^T X of bfloat16 activations loses nothing but the order of its sums. A float32
matrix is the sum of two bfloat16 ones up to 2^-17 of each entry, and three of their four products hold all that matters.
"""

from __future__ import annotations

import torch
from torch import Tensor


def add_gram(total: Tensor | None, X: Tensor) -> Tensor:
    """total + X^T X [d, d] float32 of X [n, d], in place where there is a total. Exact products where X is 16 bits wide."""
    if X.is_cuda:
        own = _split_gram(X) if X.dtype is torch.float32 else _wide(X.T, X)
        return own if total is None else total.add_(own)
    X = X.float()
    return X.T @ X if total is None else total.addmm_(X.T, X)


def product(A: Tensor, B: Tensor) -> Tensor:
    """A B in float32, of float32 A [m, k] and B [k, n]. Relative error 2^-16 on a GPU, that of float32 elsewhere."""
    if not A.is_cuda:
        return A @ B
    a, a_rest = split(A)
    b, b_rest = split(B)
    return _wide(torch.cat((a, a, a_rest), 1), torch.cat((b, b_rest, b)))  # one product of three: its sums stay in registers


def split(A: Tensor) -> tuple[Tensor, Tensor]:
    """A as the sum of two bfloat16 matrices, the second 2^-8 of the first."""
    high = A.bfloat16()
    return high, torch.sub(A, high, out=torch.empty_like(high))


def _split_gram(X: Tensor) -> Tensor:
    high, low = split(X)
    mixed = _wide(high.T, low)
    return _wide(high.T, high).add_(mixed).add_(mixed.T)


def _wide(A: Tensor, B: Tensor) -> Tensor:
    """Product of 16-bit matrices with a float32 result."""
    return torch.mm(A, B, out_dtype=torch.float32)
