"""Rounding: nearest, and GPTQ's column loop.

Rows are independent; columns are rounded left to right, and each error is spread over the columns to its right:

    columns   |<------ block ------>|<------ block ------>| ...
    scales    |<- group ->|<- group ->|
               j ->  error (w - q)/U_jj  times  U[j, j+1:]   inside the block at once,
                                                             right of it once per block
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.quantize.core.grid import Grid, values

BLOCK = 128


@dataclass(frozen=True)
class StaticScales:
    """Scales fixed before the loop: scale, zero [r, groups] float32, and the group [d] (int) that each column of the loop belongs to."""

    scale: Tensor
    zero: Tensor
    group: Tensor


@dataclass(frozen=True)
class Rounded:
    """A matrix on its grid.

    codes [r, d] uint8; scale, zero [r, groups] float32; loss [r]: tr (Q - target) A (Q - target)^T by row,
    A the matrix behind U (T_d, or H_d in the authors' modes); 0 for nearest rounding.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    loss: Tensor

    @property
    def Q(self) -> Tensor:
        """The quantized weight, [r, d] float32."""
        return values(self.codes, self.scale, self.zero)

    def rows(self, start: int, stop: int) -> Rounded:
        """The part of a stacked matrix that belongs to one module."""
        return Rounded(self.codes[start:stop], self.scale[start:stop], self.zero[start:stop], self.loss[start:stop])


def round_nearest(W: Tensor, grid: Grid) -> Rounded:
    """Round every weight of W [r, d] to the nearest point of its group's grid."""
    r, d = W.shape
    scale, zero = grid.fit_groups(W)
    codes = grid.codes(W.reshape(-1, grid.width(d)), scale.view(-1, 1), zero.view(-1, 1))
    return Rounded(codes.view(r, d).to(torch.uint8), scale, zero, W.new_zeros(r))


def round_columns(target: Tensor, U: Tensor, grid: Grid, static: StaticScales | None = None) -> Rounded:
    """GPTQ: round the target column by column, spreading each error over the columns not yet rounded.

    Args:
        target: [r, d] float32, the target (already shifted). Not modified.
        U: [d, d] float32, upper triangular with U^T U = A^-1.
        grid: bits, group size, symmetry. A group's scale is fitted when its first column is reached, to the updated weights,
            unless `static` gives it; then the columns may come in any order.
    Returns:
        Rounded, with codes in the order of the target's columns and scales by group; `loss` sums to
        tr (Q - target) A (Q - target)^T exactly.
    Source:
        GPTQ (arXiv 2210.17323), Algorithm 1.
    """
    r, d = target.shape
    width = grid.width(d)
    rest = target.T.contiguous().clone()  # [d, r]: a column of W is contiguous here
    codes = torch.empty(d, r, dtype=torch.uint8, device=target.device)
    scale = target.new_empty(d // width, r) if static is None else static.scale.T.contiguous()
    zero = torch.empty_like(scale) if static is None else static.zero.T.contiguous()
    groups = [j // width for j in range(d)] if static is None else static.group.tolist()
    loss = target.new_zeros(r)
    for start in range(0, d, BLOCK):
        stop = min(start + BLOCK, d)
        block = rest[start:stop]
        errors = torch.empty_like(block)
        u = U[start:stop, start:stop]
        diagonal = u.diagonal().tolist()
        for j in range(stop - start):
            group = groups[start + j]
            if static is None and (start + j) % width == 0:
                # Groups wider than a block begin at a block's first column, so everything right of it is up to date.
                scale[group], zero[group] = grid.fit(rest[start + j : start + j + width].T)
            s, z, w = scale[group], zero[group], block[j]
            code = grid.codes(w, s, z)
            codes[start + j] = code.to(torch.uint8)
            error = (w - s * (code - z)) / diagonal[j]
            errors[j] = error
            block[j + 1 :].addr_(u[j, j + 1 :], error, alpha=-1)
        loss += errors.square().sum(0)
        rest[stop:].addmm_(U[start:stop, stop:].T, errors, alpha=-1)
    return Rounded(codes.T.contiguous(), scale.T.contiguous(), zero.T.contiguous(), loss)
