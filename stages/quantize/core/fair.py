"""The objective of Fair-GPTQ and its closed form.

    J(Q)  =  tr (W - Q) H (W - Q)^T  +  tr Q B Q^T        to be minimized over Q on the grid
          =  tr (Q - target) A (Q - target)^T  +  const    with  A = H + B,  target = W - W B A^-1

The problem is therefore plain GPTQ with another target and another Hessian: shift the weight once,
then run the usual column loop (docs/methods.md has the derivation). Four modes exist:

    mode         target            Hessian of the loop
    exact        W - W B inv(A_d)  A_d    the closed form above
    authors      W - W B inv(H_d)  H_d    a linearization; overshoots for alpha > 0.25
    authors-sum  W - W B inv(A_d)  H_d
    error-only   W                 A_d    weighs the rounding error differently, and no more

The index d means damped once, by `damping` times the mean of the matrix's own diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fairgate.support.errors import FairgateError
from stages.quantize.core.columns import Rounded, StaticScales, round_nearest
from stages.quantize.core.diagnostics import generalized_eigenvalue
from stages.quantize.core.grid import Grid
from stages.quantize.core.kernels import round_columns
from stages.quantize.core.names import Mode
from stages.quantize.core.products import inverse_upper, matmul

DAMPING_STEP = 0.0025  # added after every failed factorization, as in the public code
DAMPING_STEPS = 40
OVERFLOW = "look for overflowing activations in this block: broken weights before it, or a calibration text that no model would meet"
FETCH_AGAIN = "fetch the model again; if its source holds them too, use another checkpoint"

# The matrices that a mode factorizes: first the loop's Hessian, last the one that makes the shift.
# The record, which is older than the name A, calls that matrix T.
_RECORDED_A = "T"
_FACTORIZED = {
    Mode.exact: (_RECORDED_A,),
    Mode.authors: ("H",),
    Mode.authors_sum: ("H", _RECORDED_A),
    Mode.error_only: (_RECORDED_A,),
}


class NotPositiveDefinite(FairgateError):
    """No factorization succeeded up to the damping limit. `tried` lists every damping tried."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "", tried: Sequence[float] = ()) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.tried = list(tried)


class NotFinite(FairgateError):
    """A weight or a calibration matrix holds NaN or infinity."""


@dataclass(frozen=True)
class Factor:
    """The inverse of a damped matrix A as a product.

    U [d, d] float32 is upper triangular, and U^T U is the inverse of A + damping mean(diag A) I.
    `tried` lists every damping tried, in order; the last one worked.
    """

    U: Tensor
    tried: list[float]

    @property
    def damping(self) -> float:
        """The damping that worked, as a fraction of mean(diag A)."""
        return self.tried[-1]


@dataclass(frozen=True)
class Solved:
    """The result for one stacked matrix, and what it took to get there.

    rounded: codes and grid.
    target: [r, d] float32, what the column loop rounded.
    damping: as used. None means that nothing was factorized and `fallback` is set.
    fallback: the matrix was rounded to nearest, because no factorization succeeded.
    top_eigenvalue: the largest mu with B v = mu H_d v. None means no B, or not asked for.
    dead: number of input channels that were never active.
    tried: every damping tried, in order, by matrix: H, and A under the record's name T.
    """

    rounded: Rounded
    target: Tensor
    damping: float | None = None
    fallback: bool = False
    top_eigenvalue: float | None = None
    dead: int = 0
    tried: dict[str, list[float]] = field(default_factory=dict)


def factorize(A: Tensor, damping: float) -> Factor:
    """Upper factor of the inverse of A, damped, from one Cholesky of the reversed matrix.

    With the reversal J, chol(J A J) = L and R = J L J is upper triangular with A = R R^T.
    Hence U = R^-1, and A is never inverted explicitly.

    Args:
        A: [d, d] float32, symmetric positive semidefinite. Not modified.
        damping: fraction of mean(diag A) that is added to the diagonal. It is raised by 0.0025,
            up to 40 times, while Cholesky fails.
    Raises:
        NotFinite: A holds NaN or infinity, which no damping repairs.
        NotPositiveDefinite: A is still indefinite at the damping limit.
    Source:
        GPTQ (arXiv 2210.17323), Algorithm 1, Cholesky step.
    """
    require_finite(A, "the Hessian", OVERFLOW)
    tried = []
    mean = A.diagonal().mean()
    for step in range(DAMPING_STEPS + 1):
        tried.append(damping + step * DAMPING_STEP)
        damped = A.flip(0, 1)
        damped.diagonal().add_(tried[-1] * mean)
        L, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            return Factor(inverse_upper(L.flip(0, 1)), tried)
    raise NotPositiveDefinite(f"the Hessian is not positive definite, damping tried up to {tried[-1]:.4f}", tried=tried)


def require_finite(matrix: Tensor, what: str, remedy: str) -> None:
    """Raise NotFinite, with the number of bad values, unless all of the matrix is finite."""
    # A sum of finite numbers is finite unless it overflows. Counting takes a GPU ten times as long.
    if not torch.isfinite(matrix.sum()) and (bad := int((~torch.isfinite(matrix)).sum())):
        raise NotFinite(f"{what} holds {bad} NaN or infinite values", remedy=remedy)


def shift(W: Tensor, B: Tensor, U: Tensor) -> Tensor:
    """The target W - W B A^-1 [r, d], where A^-1 = U^T U, of W [r, d], B [d, d] and U [d, d]."""
    return W - matmul(matmul(matmul(W, B, left_is_weight=True), U.T, right="lower"), U, right="upper")


def objective(W: Tensor, Q: Tensor, H: Tensor, B: Tensor) -> Tensor:
    """J(Q) = tr (W - Q) H (W - Q)^T + tr Q B Q^T, a scalar."""
    E = W - Q
    return ((E @ H) * E).sum() + ((Q @ B) * Q).sum()


def solve(
    W: Tensor, H: Tensor, B: Tensor | None, grid: Grid, mode: Mode, damping: float, act_order: bool = False, diagnostics: bool = True
) -> Solved:
    """Quantize W under the objective above. With B = None this is GPTQ, bit for bit.

    Args:
        W: [r, d] float32. Not modified.
        H: [d, d] float32. Not modified.
        B: [d, d] float32, not modified. None means no fairness term.
        grid: the grid of the codes.
        mode: see the module's docstring; without B all modes are GPTQ.
        damping: fraction of the mean diagonal that is added to the diagonal.
        act_order: round the columns by descending diagonal of the loop's Hessian. Needs a static
            grid. The result is in W's own order.
        diagnostics: compute the top eigenvalue too.
    Returns:
        Solved. When no factorization succeeds the matrix is rounded to nearest and `fallback` is
        set, never silently.
    Raises:
        NotFinite: W, H, B or the target holds NaN or infinity; no grid can hide that.
    """
    require_finite(W, "the weight", FETCH_AGAIN)
    if B is not None:
        require_finite(H, "the Hessian", OVERFLOW)  # before B, which is made of the same inputs
        require_finite(B, "the matrix of pair differences", OVERFLOW)
    A = H if B is None else H + B
    dead = A.diagonal() == 0
    n_dead = int(dead.sum())
    if n_dead:
        # The weights of a channel that is never active cannot matter, and a pivot of zero would
        # stop the factorization.
        W = W.masked_fill(dead, 0)
        A = A + torch.diag(dead.to(A.dtype))
        H = H + torch.diag(dead.to(H.dtype))
    matrices = {"H": H, _RECORDED_A: A}
    names = ("H",) if B is None else _FACTORIZED[mode]
    order = matrices[names[0]].diagonal().argsort(descending=True, stable=True) if act_order else None
    factors: dict[str, Factor] = {}
    for name in names:
        try:
            # Shift and permutation commute, so one factorization serves the shift and the loop.
            factors[name] = factorize(_permuted(matrices[name], order), damping)
        except NotPositiveDefinite as error:
            tried = _tried(factors) | {name: error.tried}
            return Solved(round_nearest(W, grid), W, fallback=True, dead=n_dead, tried=tried)
    loop, target, mu = factors[names[0]], W, None
    if B is not None:
        B = _permuted(B, order)
        if mode is not Mode.error_only:
            target = _shifted(W, B, factors[names[-1]].U, order)
            require_finite(target, "the shifted weight", "lower alpha, or raise damping")
        if diagnostics:
            mu = generalized_eigenvalue(B, loop.U, of_sum=names[0] == _RECORDED_A)
    rounded = _rounded(target, loop.U, grid, order)
    return Solved(rounded, target, loop.damping, top_eigenvalue=mu, dead=n_dead, tried=_tried(factors))


def _tried(factors: dict[str, Factor]) -> dict[str, list[float]]:
    return {name: factor.tried for name, factor in factors.items()}


def _permuted(matrix: Tensor, order: Tensor | None) -> Tensor:
    """The matrix [d, d] with its rows and columns in `order`. None means as they are."""
    return matrix if order is None else matrix[order][:, order]


def _shifted(W: Tensor, B: Tensor, U: Tensor, order: Tensor | None) -> Tensor:
    """The target of W. B and U are in `order`, W and the target in the layer's own order."""
    if order is None:
        return shift(W, B, U)
    return shift(W[:, order], B, U)[:, order.argsort()]


def _rounded(target: Tensor, U: Tensor, grid: Grid, order: Tensor | None) -> Rounded:
    """The column loop in `order`. U is in that order, target and result in the layer's own."""
    if not grid.static:
        return round_columns(target, U, grid)
    d = target.shape[1]
    if order is None:
        order = torch.arange(d, device=target.device)
    rounded = round_columns(target[:, order], U, grid, StaticScales(*grid.fit_groups(target), order // grid.width(d)))
    return replace(rounded, codes=rounded.codes[:, order.argsort()])
