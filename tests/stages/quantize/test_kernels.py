"""The GPU's paths against the references: run with `pytest -m gpu` where there is one."""

from __future__ import annotations

import pytest
import torch

from stages.quantize import columns, kernels
from stages.quantize.columns import Static
from stages.quantize.grid import Grid
from stages.quantize.objective import factorize
from stages.quantize.products import add_gram, product
from tests.stages.quantize import reference

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize(
    "grid",
    [
        Grid(4, 32, True),
        Grid(3, 64, False),
        Grid(2, 16, True),
        Grid(4, 128, False),
        Grid(4, -1, True),
        Grid(3, 32, False, clip=True),
        Grid(4, 64, False, lowest_zero=0),
    ],
    ids=str,
)
@pytest.mark.parametrize(("r", "d"), [(33, 192), (64, 1152)])
def test_kernel_rounds_as_the_reference_does(grid: Grid, r: int, d: int) -> None:
    if d % grid.width(d):
        pytest.skip(f"groups of {grid.group_size} do not divide {d}")
    W, H, _, _ = (tensor.float().cuda() for tensor in reference.problem(r, d, 3 * d))
    U = factorize(H, 0.01).U
    ours, theirs = kernels.round_columns_triton(W, U, grid), columns.round_columns(W, U, grid)
    # A weight on the boundary between two codes may fall either way, and moves what comes after it in its row by a little.
    assert (ours.codes != theirs.codes).float().mean() < 1e-3
    assert torch.allclose(ours.loss.sum(), theirs.loss.sum(), rtol=1e-4)
    loss = torch.einsum("rd,de,re->r", ours.Q - W, torch.linalg.inv(U.double().T @ U.double()).float(), ours.Q - W)
    assert torch.allclose(ours.loss, loss, rtol=1e-3)


def test_kernel_takes_scales_fixed_beforehand_in_any_order() -> None:
    W, H, _, _ = (tensor.float().cuda() for tensor in reference.problem(40, 256, 700))
    order = H.diagonal().argsort(descending=True)
    grid = Grid(4, 32, False, static=True)
    static = Static(*grid.fit_groups(W), order // 32)
    U = factorize(H[order][:, order], 0.01).U
    ours, theirs = (rounding(W[:, order], U, grid, static).codes for rounding in (kernels.round_columns_triton, columns.round_columns))
    assert (ours != theirs).float().mean() < 1e-3


def test_kernel_gives_the_same_bits_twice() -> None:
    W, H, _, _ = (tensor.float().cuda() for tensor in reference.problem(512, 1024, 3000))
    U = factorize(H, 0.01).U
    first, second = (kernels.round_columns(W, U, Grid(4, 128, True)) for _ in range(2))
    assert torch.equal(first.codes, second.codes)


def test_sums_of_16_bit_activations_are_exact_up_to_their_order() -> None:
    X = torch.randn(5000, 256, generator=torch.Generator().manual_seed(0)).bfloat16().cuda()
    exact = X.double().T @ X.double()
    twice = add_gram(add_gram(None, X), X)
    # Tensor cores cut off where other units round: the error grows with the number of rows, not with its root.
    assert ((twice.double() - 2 * exact).abs().max() / exact.diagonal().mean()) < 5e-4


def test_float32_products_keep_sixteen_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(512, 512, generator=generator).cuda() for _ in range(2))
    exact = A.double() @ B.double()
    assert ((product(A, B).double() - exact).norm() / exact.norm()) < 2e-5
    assert ((add_gram(None, A).double() - A.double().T @ A.double()).norm() / exact.norm()) < 2e-5
