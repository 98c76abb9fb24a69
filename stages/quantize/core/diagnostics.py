"""What a record says about the fairness term, beside the formulas: where it sits, how strong it is.

The pair penalty of a weight is F(Q) = tr (Q C Q^T). C holds no alpha, so different runs compare.

    F = sum over inputs j of f_j = sum over outputs i of g_i = sum over weights

A single f_j may be negative, because channels cancel. Values keep their sign: only then do they
add up. The strength against the plain Hessian is the largest mu with B v = mu H v.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fairgate.contracts.contributions import Contribution
from stages.quantize.core.products import coarse_matmul

TOP = 8  # channels of a module that are listed
_NU_LIMIT = 1 - 1e-6  # keeps mu = nu / (1 - nu) finite where B dwarfs H


def channel_contributions(Q: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """What each input channel and each output channel contributes to tr (Q C Q^T).

    Args:
        Q: [.., r, d] float32.
        C: [d, d] float32.
    Returns:
        f: [.., d] float64, of the inputs: f_j = q_j . (Q C)_j, with its sign.
        g: [.., r] float64, of the outputs: g_i = Q_i C Q_i^T, never negative.
    """
    weights = Q * coarse_matmul(Q.reshape(-1, Q.shape[-1]), C).view_as(Q)
    return weights.sum(-2, dtype=torch.float64), weights.sum(-1, dtype=torch.float64)


def module_contributions(name: str, block: int, kind: str, states: Mapping[str, Tensor], C: Tensor, pairs: int) -> list[Contribution]:
    """The rows of one module: its total, its largest input and output channels, and the rest.

    Args:
        name: full name of the module.
        block: number of its block.
        kind: what the module is called in every block.
        states: the weight [r, d] in each state of the table, by name.
        C: [d, d] float32.
        pairs: the number P, by which all values are divided.
    """
    names = {"block": block, "kind": kind, "module": name}
    parts = zip(("input", "output"), channel_contributions(torch.stack(list(states.values())), C), strict=True)
    levels = {level: [part.cpu() for part in _largest(values / pairs)] for level, values in parts}
    rows = [_row("module", names, None, states, levels["output"][0].sum(1))]
    for level, (values, channels) in levels.items():
        rows += [_row(level, names, channel, states, values[:, at]) for at, channel in enumerate(channels.tolist())]
        rows.append(_row(level, names, None, states, values[:, -1]))
    return rows


def generalized_eigenvalue(B: Tensor, U: Tensor, *, of_sum: bool) -> float:
    """The largest mu with B v = mu H v, from the factor that the column loop needs anyway.

    Args:
        B: [d, d] float32.
        U: [d, d] float32 with U^T U = H^-1, or (H + B)^-1 where `of_sum` is set.
        of_sum: whether U belongs to H + B. Its eigenvalue is nu = mu / (1 + mu).
    """
    top = top_eigenvalue(B, U)
    if not of_sum:
        return top
    nu = min(top, _NU_LIMIT)
    return nu / (1 - nu)


def top_eigenvalue(B: Tensor, U: Tensor, vectors: int = 8, steps: int = 16) -> float:
    """Largest eigenvalue of U B U^T by subspace iteration.

    It is the largest generalized eigenvalue of (B, A) where U^T U = A^-1.

    Args:
        B: [d, d] float32.
        U: [d, d] float32.
    """
    generator = torch.Generator().manual_seed(0)
    V = torch.randn(B.shape[0], min(vectors, B.shape[0]), generator=generator).to(B)
    # 16 bits are enough on the way: the last product, in float32, squares an error in V away.
    b, u = (B.bfloat16(), U.bfloat16()) if B.is_cuda else (B, U)
    for step in range(steps):
        if step % 8 == 7:
            # Nearly orthogonal is enough, and on a GPU a factor of 8 x 8 is far cheaper than a QR.
            gram = V.T @ V
            # B may have fewer directions than there are vectors, or none.
            gram.diagonal().add_((1e-5 * gram.trace()).clamp(min=1e-30))
            V = torch.linalg.solve_triangular(torch.linalg.cholesky_ex(gram)[0], V.T, upper=False).T
        V = (u @ (b @ (u.T @ V.to(u.dtype)))).to(V.dtype)
    V = torch.linalg.qr(V)[0]
    projected = V.T @ (U @ (B @ (U.T @ V)))
    return float(torch.linalg.eigvalsh((projected + projected.T) / 2)[-1])


def _largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """The largest channels of values [states, channels], and the sum of all others.

    Largest means largest in any state: a channel that rounding made large counts as much as one
    that was large before.

    Returns:
        [states, TOP + 1], values of the largest channels and, last, the sum of the others.
        [TOP], the channels.
    """
    order = values.abs().amax(0).argsort(descending=True, stable=True)
    return torch.cat((values[:, order[:TOP]], values[:, order[TOP:]].sum(1, keepdim=True)), 1), order[:TOP]


def _row(level: str, names: Mapping[str, object], channel: int | None, states: Mapping[str, Tensor], values: Tensor) -> Contribution:
    by_state = dict(zip(states, values.tolist(), strict=True))
    return Contribution.model_validate({"level": level, **names, "channel": channel, **by_state})
