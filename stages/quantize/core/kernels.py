"""The column loop of GPTQ on a GPU: one Triton kernel per 128 columns.

Without it every single column costs ten small launches. Rows are independent, so a program takes a
few rows, holds their 128 weights in registers and goes through the columns there. What the errors
of a block do to the columns right of it is one product. The arithmetic is that of
`columns.round_columns`, with which the tests compare it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.quantize.core import columns
from stages.quantize.core.columns import BLOCK, Rounded, StaticScales
from stages.quantize.core.grid import TINY, Grid
from stages.quantize.core.products import matmul

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for CPUs brings none
    triton = None

# Pinned, not tuned at run time: another tile sums in another order, so that the same inputs would
# give another digest.
ROWS, WARPS = 16, 4
# Columns beyond the span that a block lies in are updated once per span, on tensor cores.
SPAN = 2048


def round_columns(target: Tensor, U: Tensor, grid: Grid, static: StaticScales | None = None) -> Rounded:
    """`columns.round_columns`, which documents arguments and result; on a GPU by the kernel."""
    if triton is None or not target.is_cuda:
        return columns.round_columns(target, U, grid, static)
    return round_columns_triton(target, U, grid, static)


def round_columns_triton(target: Tensor, U: Tensor, grid: Grid, static: StaticScales | None = None) -> Rounded:
    """The kernel over all blocks of columns, on a device that Triton compiles for.

    Arguments and result are those of `round_columns`.
    """
    r, d = target.shape
    width = grid.width(d)
    rest = target.contiguous().clone()
    U = U.contiguous()
    codes = torch.empty(r, d, dtype=torch.uint8, device=target.device)
    scale = target.new_empty(r, d // width) if static is None else static.scale.contiguous()
    zero = torch.empty_like(scale) if static is None else static.zero.contiguous()
    group = torch.arange(d, device=target.device) // width if static is None else static.group
    loss = target.new_zeros(r)
    errors = target.new_empty(r, SPAN)
    # The kernel itself fits min-max grids of format v1 to groups inside its block. For other grids
    # a block ends where its group ends, and grid.fit runs between two blocks.
    fit = static is None and width <= BLOCK and not grid.clip and grid.lowest_zero == 1
    block = BLOCK if fit or static is not None else min(width, BLOCK)
    for start in range(0, d, block):
        stop = min(start + block, d)
        first, last = start // SPAN * SPAN, min((start // SPAN + 1) * SPAN, d)
        if static is None and not fit and start % width == 0:
            scale[:, start // width], zero[:, start // width] = grid.fit(rest[:, start : start + width])
        _columns[(triton.cdiv(r, ROWS),)](
            rest,
            U,
            codes,
            errors[:, start - first :],
            scale,
            zero,
            group,
            loss,
            r,
            d,
            start,
            stop - start,
            scale.shape[1],
            TOP=grid.top,
            INNER=min(width, BLOCK),
            FIT=fit,
            SYMMETRIC=grid.symmetric,
            TINY_SCALE=TINY,
            ROWS=ROWS,
            BLOCK=BLOCK,
            SPAN=SPAN,
            num_warps=WARPS,
        )
        if stop < last:
            rest[:, stop:last].addmm_(errors[:, start - first : stop - first], U[start:stop, stop:last], alpha=-1)
        elif last < d:
            rest[:, last:] -= matmul(errors[:, : last - first], U[first:last, last:])
    return Rounded(codes, scale, zero, loss)


if triton is not None:

    @triton.jit
    def _round(x):  # type: ignore[no-untyped-def]
        # Half to even, as torch.round: adding 1.5 * 2^23 leaves no bits behind the point.
        return (x + 12582912.0) - 12582912.0

    @triton.jit
    def _columns(  # type: ignore[no-untyped-def]
        rest,
        U,
        codes,
        errors,
        scale,
        zero,
        group,
        loss,
        r,
        d,
        start,
        count,
        n_groups,
        TOP: tl.constexpr,
        INNER: tl.constexpr,
        FIT: tl.constexpr,
        SYMMETRIC: tl.constexpr,
        TINY_SCALE: tl.constexpr,
        ROWS: tl.constexpr,
        BLOCK: tl.constexpr,
        SPAN: tl.constexpr,
    ):
        row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        column = tl.arange(0, BLOCK)
        in_matrix = row < r
        tile = in_matrix[:, None] & (column < count)[None, :]
        w = tl.load(rest + row[:, None] * d + (start + column)[None, :], mask=tile, other=0.0)
        error = tl.zeros((ROWS, BLOCK), tl.float32)
        code = tl.zeros((ROWS, BLOCK), tl.float32)
        total = tl.load(loss + row, mask=in_matrix, other=0.0)
        s = tl.zeros((ROWS,), tl.float32)
        z = tl.zeros((ROWS,), tl.float32)
        # A row of U is loaded one column before its use, which keeps this latency out of the loop.
        pivot = tl.load(U + start.to(tl.int64) * d + start)
        u = tl.load(U + start.to(tl.int64) * d + start + column, mask=(column > 0) & (column < count), other=0.0)
        for first in range(0, count, INNER):
            if FIT:
                inside = (column >= first) & (column < first + INNER)
                low = tl.min(tl.where(inside[None, :], w, 0.0), axis=1)
                high = tl.max(tl.where(inside[None, :], w, 0.0), axis=1)
                if SYMMETRIC:
                    s = tl.div_rn(2 * tl.maximum(-low, high), tl.full((ROWS,), TOP, tl.float32))
                    z = tl.full((ROWS,), (TOP + 1) // 2, tl.float32)
                else:
                    s = tl.div_rn(high - low, tl.full((ROWS,), TOP, tl.float32))
                    z = tl.div_rn(-low, tl.maximum(s, TINY_SCALE))
                    z = tl.minimum(tl.maximum(_round(tl.minimum(z, 2.0 * TOP)), 1.0), TOP)
                    s = tl.where(z <= 1, tl.maximum(s, tl.div_rn(high, tl.full((ROWS,), TOP - 1, tl.float32))), s)
                s = tl.where(s > 0, tl.maximum(s, TINY_SCALE), 1.0)
                s = s.to(tl.float16).to(tl.float32)
                at_group = row * n_groups + (start + first) // INNER
                tl.store(scale + at_group, s, mask=in_matrix)
                tl.store(zero + at_group, z, mask=in_matrix)
            for j in range(first, tl.minimum(first + INNER, count)):
                line = U + (start + j + 1).to(tl.int64) * d + start
                next_pivot = tl.load(line + j + 1, mask=j + 1 < count, other=1.0)
                next_u = tl.load(line + column, mask=(column > j + 1) & (column < count), other=0.0)
                if not FIT:
                    at_group = row * n_groups + tl.load(group + start + j)
                    s = tl.load(scale + at_group, mask=in_matrix, other=1.0)
                    z = tl.load(zero + at_group, mask=in_matrix, other=0.0)
                at = (column == j)[None, :]
                wj = tl.sum(tl.where(at, w, 0.0), axis=1)
                c = tl.minimum(tl.maximum(tl.div_rn(wj, s) + z, -1.0), TOP + 1.0)
                c = tl.minimum(tl.maximum(_round(c), 0.0), TOP)
                e = tl.div_rn(wj - s * (c - z), tl.zeros((ROWS,), tl.float32) + pivot)
                w -= e[:, None] * u[None, :]
                error = tl.where(at, e[:, None], error)
                code = tl.where(at, c[:, None], code)
                total += e * e
                pivot, u = next_pivot, next_u
        place = row[:, None] * d + (start + column)[None, :]
        tl.store(codes + place, code.to(tl.uint8), mask=tile)
        tl.store(errors + row[:, None] * SPAN + column[None, :], error, mask=tile)
        tl.store(loss + row, total, mask=in_matrix)
