"""Where in a weight matrix the pair penalty F(Q) = tr (Q C Q^T) sits. C holds no alpha, so values of different runs compare.

    F = sum over inputs j of f_j = sum over outputs i of g_i = sum over weights

Single f_j may be negative (cancellation between channels); they are signed on purpose, and only then do they add up.
"""

from __future__ import annotations

from torch import Tensor

from stages.quantize.products import product


def by_input(Q: Tensor, C: Tensor) -> Tensor:
    """f_j = q_j . (Q C)_j, the contribution of input channel j: Q [r, d], C [d, d] -> [d], signed, sums to tr (Q C Q^T)."""
    return (Q * product(Q, C)).sum(0)


def by_output(Q: Tensor, C: Tensor) -> Tensor:
    """g_i = Q_i C Q_i^T, the contribution of output channel i: Q [r, d], C [d, d] -> [r], not negative, sums to tr (Q C Q^T)."""
    return (Q * product(Q, C)).sum(1)
