"""Rounding to nearest, and the column loop of GPTQ.

Rows are independent. Columns are rounded left to right, and the error of each is spread over the
columns to its right:

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
    """Scales fixed before the loop.

    scale: [r, groups] float32.
    zero: [r, groups] float32.
    group: [d] int64, the group of each column of the loop.
    """

    scale: Tensor
    zero: Tensor
    group: Tensor


@dataclass(frozen=True)
class Rounded:
    """A matrix on its grid.

    codes: [r, d] uint8.
    scale: [r, groups] float32.
    zero: [r, groups] float32.
    loss: [r] float32, (q - target) A (q - target)^T of each row, where A is the matrix behind U
        (the damped H + B, or the damped H in the authors' modes). 0 after rounding to nearest.
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
        """The rows of a stacked matrix that belong to one module."""
        return Rounded(self.codes[start:stop], self.scale[start:stop], self.zero[start:stop], self.loss[start:stop])


def round_nearest(W: Tensor, grid: Grid) -> Rounded:
    """Round every weight of W [r, d] to the nearest point of its group's grid."""
    r, d = W.shape
    scale, zero = grid.fit_groups(W)
    codes = grid.codes(W.reshape(-1, grid.width(d)), scale.view(-1, 1), zero.view(-1, 1))
    return Rounded(codes.view(r, d).to(torch.uint8), scale, zero, W.new_zeros(r))


def round_columns(target: Tensor, U: Tensor, grid: Grid, static: StaticScales | None = None) -> Rounded:
    """GPTQ: round column by column, and spread each error over the columns not yet rounded.

    Args:
        target: [r, d] float32, already shifted. Not modified.
        U: [d, d] float32, upper triangular with U^T U = A^-1.
        grid: bits, group size, symmetry.
        static: scales fixed beforehand; the columns may then come in any order. None means that a
            scale is fitted when the first column of its group is reached, to the updated weights.
    Returns:
        Rounded, with codes in the order of the target's columns and scales by group. `loss` sums
        to tr (Q - target) A (Q - target)^T exactly.
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
                # A group wider than a block begins with a block, so all its columns are up to date.
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
