"""Fair-GPTQ on one page: float64, explicit inverses, one column at a time. Start reading here.

Nothing at run time uses this module. It is the method written for clarity, and the tests compare
the fast code with it. One linear layer computes x W^T, and its weight W [r, d] has r outputs and
d inputs. Calibration gives two matrices [d, d]:

    H   how much the layer's outputs change, on average, when W changes
    B   how strongly a weight tells the two sentences of a stereotype pair apart, times alpha

Fair-GPTQ looks for the Q on a grid of 2^bits values that minimizes

    J(Q) = tr (W - Q) H (W - Q)^T  +  tr Q B Q^T

in three steps:

    1. Complete the square: J(Q) = tr (Q - target) A (Q - target)^T + const. This is the problem of
       plain GPTQ, with target = W - W B A^-1 and A = H + B      (`target_and_hessian`, mode exact).
    2. Damp A, so that it can be inverted                                                 (`damp`).
    3. Round the target column by column. After each column move the columns to its right to where
       they make up best for its error under A                                            (`gptq`).

The fast code does the same with one triangular factor U of A^-1 instead of an inverse per column
(`fair.factorize`), and spreads errors over 128 columns at a time (`columns.round_columns`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.quantize.core.grid import Grid


def damp(A: Tensor, damping: float) -> Tensor:
    """A [d, d] with `damping` times the mean of its diagonal added to its diagonal."""
    return A + damping * A.diagonal().mean() * torch.eye(len(A), dtype=A.dtype)


def target_and_hessian(W: Tensor, H: Tensor, B: Tensor, mode: str, damping: float) -> tuple[Tensor, Tensor]:
    """What the column loop rounds, and under which Hessian, by the table of modes in `fair`.

    Two inputs whose activations are opposite in the one pair. What both sentences share, the sum
    of the weights, stays. What tells them apart, the difference of the weights, shrinks to a third:

    >>> W = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    >>> H = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    >>> B = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    >>> target, A = target_and_hessian(W, H, B, "exact", damping=0.0)
    >>> target  # 5/3 and 4/3
    tensor([[1.6667, 1.3333]], dtype=torch.float64)
    >>> A
    tensor([[3., 0.],
            [0., 3.]], dtype=torch.float64)

    Args:
        W: [r, d] float64.
        H: [d, d] float64.
        B: [d, d] float64.
        mode: exact, authors, authors-sum or error-only.
        damping: fraction of the mean diagonal.
    Returns:
        target [r, d] and the damped Hessian of the loop [d, d], float64.
    """
    Hd, Ad = damp(H, damping), damp(H + B, damping)
    if mode == "exact":
        return W - W @ B @ Ad.inverse(), Ad
    if mode == "authors":
        return W - W @ B @ Hd.inverse(), Hd
    if mode == "authors-sum":
        return W - W @ B @ Ad.inverse(), Hd
    return W, Ad


def gptq(target: Tensor, A: Tensor, grid: Grid, static: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
    """Round the target column by column; the columns to the right make up for every error.

    Suppose column j was rounded with the error e = w_j - q_j. The best that the columns to its
    right can do about it, under A, is to move by -e [A_j^-1]_(0,1:) / [A_j^-1]_00, where A_j is A
    without the columns that are rounded already.

    Two equal weights on the integers (scale 1, zero 8 of 4 bits). Rounding to nearest takes both up
    and is off by 0.4 twice, in the same direction, which A punishes. GPTQ takes the first one up:
    the best place of the second is then 0.4, so it goes down. The error falls from 0.96 to 0.56:

    >>> W = torch.tensor([[0.6, 0.6]], dtype=torch.float64)
    >>> A = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    >>> integers = torch.ones(1, 1), torch.full((1, 1), 8.0), torch.tensor([0, 0])
    >>> Q = gptq(W, A, Grid(bits=4, group_size=-1, symmetric=True), integers)
    >>> Q.tolist()
    [[1.0, 0.0]]
    >>> [round(float((E @ A @ E.T).trace()), 2) for E in (W - W.round(), W - Q)]
    [0.96, 0.56]

    Args:
        target: [r, d] float64. Not modified.
        A: [d, d] float64, positive definite.
        grid: bits, group size, symmetry. The scale of a group is fitted when its first column is
            reached, to the weights as moved by then.
        static: scale [r, groups], zero [r, groups] and the group of each column [d], if all
            scales are fixed beforehand. None means that they are fitted on the way.
    Returns:
        Q [r, d] float64, on the grid.
    Source:
        GPTQ (arXiv 2210.17323), equations 2 and 3.
    """
    rest = target.clone()
    d = rest.shape[1]
    width = grid.width(d)
    Q = torch.zeros_like(rest)
    scale = zero = torch.zeros(len(rest), dtype=rest.dtype)
    for j in range(d):
        if static is not None:
            scale, zero = (values[:, static[2][j]] for values in static[:2])
        elif j % width == 0:
            fitted_scale, fitted_zero = grid.fit(rest[:, j : j + width].float())
            scale, zero = fitted_scale.double(), fitted_zero.double()
        Q[:, j] = scale * (grid.codes(rest[:, j], scale, zero) - zero)
        inverse = A[j:, j:].inverse()
        error = (rest[:, j] - Q[:, j]) / inverse[0, 0]
        rest[:, j:] -= error[:, None] * inverse[0][None, :]
    return Q


def problem(r: int = 12, d: int = 32, n: int = 96, pairs: int = 20, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A made-up layer with correlated inputs, for tests and examples.

    Args:
        r: outputs.
        d: inputs.
        n: calibration tokens, each a sentence of its own.
        pairs: pairs, with one difference each.
        seed: of the random numbers.
    Returns:
        W [r, d], H [d, d], C [d, d] and X [n, d], float64.
    """
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, dtype=torch.float64, generator=generator) / d**0.5
    X = torch.randn(n, d, dtype=torch.float64, generator=generator) @ mix
    D = torch.randn(pairs, d, dtype=torch.float64, generator=generator) @ mix
    W = torch.randn(r, d, dtype=torch.float64, generator=generator)
    return W, 2 * X.T @ X / n, D.T @ D, X
