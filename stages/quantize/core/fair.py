"""The objective and its closed form.

    min over Q on the grid:   tr (W - Q) H (W - Q)^T  +  tr Q B Q^T      =  const + tr (Q - target) A (Q - target)^T
    A  = H + B,     target = W - W B A^-1

so the exact problem is plain GPTQ with this target and Hessian A (docs/methods.md has the derivation).

    mode         shift             Hessian in the loop
    exact        - W B inv(A_d)    A_d
    authors      - W B inv(H_d)    H_d     a linearisation; overshoots for alpha > 0.25
    authors-sum  - W B inv(A_d)    H_d
    error-only   none              A_d     reweights the rounding error only

_d: damped once, by `damping` times the matrix's own mean diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fairgate.support.errors import FairgateError
from stages.quantize.core.columns import Rounded, Static, round_nearest
from stages.quantize.core.grid import Grid
from stages.quantize.core.kernels import round_columns
from stages.quantize.core.names import Mode
from stages.quantize.core.products import inverse_upper, matmul

DAMPING_STEP = 0.0025  # added to the damping on every failed factorization (the public code's value)
DAMPING_STEPS = 40
OVERFLOW = "look for overflowing activations in this block: broken weights before it, or a calibration text that no model would meet"
FETCH_AGAIN = "fetch the model again; if its source holds them too, use another checkpoint"


class NotPositiveDefinite(FairgateError):
    """No factorization succeeded up to the damping limit."""


class NotFinite(FairgateError):
    """A weight or a calibration matrix holds NaN or infinity."""


@dataclass(frozen=True)
class Factor:
    """U [d, d] float32 upper triangular with U^T U = inv(A + damping mean(diag A) I); `damping` as used."""

    U: Tensor
    damping: float


@dataclass(frozen=True)
class Solved:
    """Result for one stacked matrix: the rounded weight, the target, and what was needed to get there.

    `damping` as used (None after a fallback); `top_eigenvalue` mu of (B, damped H), None if there is no B or nobody asked; `dead`: channels
    never active;
    `tried`: every damping tried, in order, for each matrix that was factorized: H, and A under the key `T` that the record has for it.
    """

    rounded: Rounded
    target: Tensor
    damping: float | None
    fallback: bool
    top_eigenvalue: float | None
    dead: int
    tried: dict[str, list[float]]


def factorize(A: Tensor, damping: float, tried: list[float] | None = None) -> Factor:
    """Upper factor of the inverse of A, damped; one Cholesky of the reversed matrix, no explicit inverse.

    With the reversal J: chol(J A J) = L, R = J L J is upper and A = R R^T, so U = R^-1.

    Args:
        A: [d, d] float32, symmetric positive semidefinite. Not modified.
        damping: fraction of mean(diag A) added to the diagonal; raised by 0.0025 up to 40 times when Cholesky fails.
        tried: takes every damping tried, the one that worked last; it tells the ladder of a failure too.
    Raises:
        NotFinite: A holds NaN or infinity; no damping repairs that.
        NotPositiveDefinite: still indefinite at the damping limit.
    Source:
        GPTQ (arXiv 2210.17323), Algorithm 1, Cholesky step.
    """
    require_finite(A, "the Hessian", OVERFLOW)
    tried = [] if tried is None else tried
    mean = A.diagonal().mean()
    for step in range(DAMPING_STEPS + 1):
        used = damping + step * DAMPING_STEP
        tried.append(used)
        damped = A.flip(0, 1)
        damped.diagonal().add_(used * mean)
        L, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            return Factor(inverse_upper(L.flip(0, 1)), used)
    raise NotPositiveDefinite(f"the Hessian is not positive definite, damping tried up to {used:.4f}")


def require_finite(A: Tensor, what: str, remedy: str) -> None:
    """Raise NotFinite, with the number of bad values, unless all of A is finite."""
    # The sum of finite numbers is finite, unless it overflows; counting takes a GPU ten times as long.
    if not torch.isfinite(A.sum()) and (bad := int((~torch.isfinite(A)).sum())):
        raise NotFinite(f"{what} holds {bad} NaN or infinite values", remedy=remedy)


def shift(W: Tensor, B: Tensor, U: Tensor) -> Tensor:
    """W - W B A^-1 with A^-1 = U^T U.  W [r, d], B [d, d], U [d, d]; returns [r, d]."""
    return W - matmul(matmul(matmul(W, B, left_is_weight=True), U.T, right="lower"), U, right="upper")


def objective(W: Tensor, Q: Tensor, H: Tensor, B: Tensor) -> Tensor:
    """tr (W - Q) H (W - Q)^T + tr Q B Q^T, a scalar."""
    E = W - Q
    return ((E @ H) * E).sum() + ((Q @ B) * Q).sum()


def top_eigenvalue(B: Tensor, U: Tensor, vectors: int = 8, steps: int = 16) -> float:
    """Largest eigenvalue of U B U^T by subspace iteration: the largest generalised eigenvalue of (B, A) where U^T U = A^-1."""
    generator = torch.Generator().manual_seed(0)
    V = torch.randn(B.shape[0], min(vectors, B.shape[0]), generator=generator).to(B)
    # On the way 16 bits are enough: the last product, in float32, forgives the square of an error in V.
    b, u = (B.bfloat16(), U.bfloat16()) if B.is_cuda else (B, U)
    for step in range(steps):
        if step % 8 == 7:
            # Nearly orthogonal is enough too, and a factor of 8 x 8 costs a GPU far less than a QR of the long matrix.
            gram = V.T @ V
            gram.diagonal().add_((1e-5 * gram.trace()).clamp(min=1e-30))  # B may have fewer directions than there are vectors, or none
            V = torch.linalg.solve_triangular(torch.linalg.cholesky_ex(gram)[0], V.T, upper=False).T
        V = (u @ (b @ (u.T @ V.to(u.dtype)))).to(V.dtype)
    V = torch.linalg.qr(V)[0]
    projected = V.T @ (U @ (B @ (U.T @ V)))
    return float(torch.linalg.eigvalsh((projected + projected.T) / 2)[-1])


def solve(
    W: Tensor, H: Tensor, B: Tensor | None, grid: Grid, mode: Mode, damping: float, act_order: bool = False, diagnostics: bool = True
) -> Solved:
    """Quantize W under the objective above. With B = None this is GPTQ, bit for bit.

    Args:
        W: [r, d] float32. H: [d, d] float32. B: [d, d] float32 or None. None of them is modified.
        grid, mode, damping: see the module's docstring.
        act_order: round the columns by descending diagonal of the loop's Hessian; needs a static grid. What is returned is in W's order.
        diagnostics: find the top eigenvalue too.
    Returns:
        Solved. When no factorization succeeds the matrix is rounded to nearest and `fallback` is set, never silently.
    Raises:
        NotFinite: W, H, B or the shifted target holds NaN or infinity; no grid can hide that.
    """
    require_finite(W, "the weight", FETCH_AGAIN)
    if B is not None:
        require_finite(H, "the Hessian", OVERFLOW)  # named before B, which is made of the same inputs
        require_finite(B, "the matrix of pair differences", OVERFLOW)
    tried: dict[str, list[float]] = {}
    A = H if B is None else H + B
    dead = A.diagonal() == 0
    n_dead = int(dead.sum())
    if n_dead:
        # A channel that is never active: its weights cannot matter, and a zero pivot would stop the factorization.
        W = W.masked_fill(dead, 0)
        A = A + torch.diag(dead.to(A.dtype))
        H = H + torch.diag(dead.to(H.dtype))
    order = None
    if act_order:
        order = (H if mode in (Mode.authors, Mode.authors_sum) else A).diagonal().argsort(descending=True, stable=True)
    try:
        # The shift commutes with an order of the columns, so one factorization serves it and the loop.
        if B is None:
            loop = factorize(_ordered(H, order), damping, tried.setdefault("H", []))
            target, top = W, None
        else:
            columns = W if order is None else W[:, order]
            target, loop, top = _shifted(
                columns, _ordered(H, order), _ordered(A, order), _ordered(B, order), mode, damping, tried, diagnostics
            )
            target = target if order is None else target[:, order.argsort()]
            require_finite(target, "the shifted weight", "lower alpha, or raise damping")
    except NotPositiveDefinite:
        return Solved(round_nearest(W, grid), W, None, True, None, n_dead, tried)
    return Solved(_rounded(target, loop.U, grid, order), target, loop.damping, False, top, n_dead, tried)


def _ordered(A: Tensor, order: Tensor | None) -> Tensor:
    """A [d, d] with rows and columns in `order`."""
    return A if order is None else A[order][:, order]


def _rounded(target: Tensor, U: Tensor, grid: Grid, order: Tensor | None) -> Rounded:
    """The column loop in `order`, to which U belongs; the target and what is returned are in the layer's own order."""
    if not grid.static:
        return round_columns(target, U, grid)
    d = target.shape[1]
    if order is None:
        order = torch.arange(d, device=target.device)
    rounded = round_columns(target[:, order], U, grid, Static(*grid.fit_groups(target), order // grid.width(d)))
    return replace(rounded, codes=rounded.codes[:, order.argsort()])


def _shifted(
    W: Tensor, H: Tensor, A: Tensor, B: Tensor, mode: Mode, damping: float, tried: dict[str, list[float]], diagnostics: bool
) -> tuple[Tensor, Factor, float | None]:
    """Target, loop factor, and the largest generalised eigenvalue mu of (B, damped H), if `diagnostics` asks for it."""
    if mode in (Mode.exact, Mode.error_only):
        sum_factor = factorize(A, damping, tried.setdefault("T", []))
        target = W if mode is Mode.error_only else shift(W, B, sum_factor.U)
        if not diagnostics:
            return target, sum_factor, None
        nu = min(top_eigenvalue(B, sum_factor.U), 1 - 1e-6)  # of (B, H + B): nu = mu / (1 + mu)
        return target, sum_factor, nu / (1 - nu)
    own_factor = factorize(H, damping, tried.setdefault("H", []))
    U = own_factor.U if mode is Mode.authors else factorize(A, damping, tried.setdefault("T", [])).U
    return shift(W, B, U), own_factor, top_eigenvalue(B, own_factor.U) if diagnostics else None
