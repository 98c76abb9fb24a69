"""The GPU's paths against the references: run with `pytest -m gpu` where there is one."""

from __future__ import annotations

import pytest
import torch

from stages.quantize.core import columns, kernels, reference
from stages.quantize.core.columns import StaticScales
from stages.quantize.core.differences import differences
from stages.quantize.core.fair import factorize
from stages.quantize.core.grid import Grid
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import EncodedPair, pair_batches
from stages.quantize.core.products import add_difference_gram, add_gram, coarse_matmul, fill_lower, inverse_upper, matmul

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
    # A weight on the boundary between two codes may fall either way, and moves the weights after
    # it in its row by a little.
    assert (ours.codes != theirs.codes).float().mean() < 1e-3
    assert torch.allclose(ours.loss.sum(), theirs.loss.sum(), rtol=1e-4)
    loss = torch.einsum("rd,de,re->r", ours.Q - W, torch.linalg.inv(U.double().T @ U.double()).float(), ours.Q - W)
    assert torch.allclose(ours.loss, loss, rtol=1e-3)


def test_kernel_takes_scales_fixed_beforehand_in_any_order() -> None:
    W, H, _, _ = (tensor.float().cuda() for tensor in reference.problem(40, 256, 700))
    order = H.diagonal().argsort(descending=True)
    grid = Grid(4, 32, False, static=True)
    static = StaticScales(*grid.fit_groups(W), order // 32)
    U = factorize(H[order][:, order], 0.01).U
    ours, theirs = (rounding(W[:, order], U, grid, static).codes for rounding in (kernels.round_columns_triton, columns.round_columns))
    assert (ours != theirs).float().mean() < 1e-3


def test_kernel_gives_the_same_bits_twice() -> None:
    W, H, _, _ = (tensor.float().cuda() for tensor in reference.problem(512, 1024, 3000))
    U = factorize(H, 0.01).U
    first, second = (kernels.round_columns(W, U, Grid(4, 128, True)) for _ in range(2))
    assert torch.equal(first.codes, second.codes)


def test_sums_of_16_bit_activations_are_exact_up_to_their_order() -> None:
    X = torch.randn(5000, 600, generator=torch.Generator().manual_seed(0)).bfloat16().cuda()
    exact = X.double().T @ X.double()
    twice = fill_lower(add_gram(add_gram(None, X), X))
    assert torch.equal(twice, twice.T) or (twice - twice.T).abs().max() < 1e-3 * twice.diagonal().mean()
    # Tensor cores truncate where other units round, so the error grows with the number of rows and
    # not with its root.
    assert ((twice.double() - 2 * exact).abs().max() / exact.diagonal().mean()) < 5e-4


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_float16_differences_lose_no_more_than_the_tensor_cores_do(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4000, 600, generator=generator) * torch.rand(600, generator=generator) * size
    second = first + 0.2 * size * torch.randn(4000, 600, generator=generator)
    D = (first.bfloat16().float() - second.bfloat16().float()).cuda()
    exact = D.double().T @ D.double()
    assert (fill_lower(add_difference_gram(None, D)).double() - exact).norm() / exact.norm() < 3e-4
    twice = fill_lower(add_difference_gram(add_difference_gram(None, D), D))
    assert (twice.double() - 2 * exact).norm() / exact.norm() < 6e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("alignment", Alignment)
def test_differences_by_the_kernel_are_those_of_the_matrix(alignment: Alignment, dtype: torch.dtype) -> None:
    pairs = [EncodedPair(str(i), "a", [1, 5, 6 + i, 7, 8, 9], [1, 5, 3, 4 + i, 7, 8, 9][: 7 - i % 2]) for i in range(6)]
    for batch in pair_batches(pairs, alignment, 0, 4096, {"a": 0}):
        batch = batch.to(torch.device("cuda"))
        X = torch.randn(batch.ids.numel(), 1500, device="cuda").to(dtype)
        assert batch.M is not None
        assert torch.allclose(differences(batch, X), torch.sparse.mm(batch.M, X.float()), atol=1e-5)


def test_float32_products_keep_sixteen_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(640, 640, generator=generator).cuda() for _ in range(2))
    exact = A.double() @ B.double()
    assert ((matmul(A, B).double() - exact).norm() / exact.norm()) < 2e-5
    assert ((matmul(A, B.triu(), right="upper").double() - A.double() @ B.triu().double()).norm() / exact.norm()) < 2e-5
    assert ((matmul(A, B.tril(), right="lower").double() - A.double() @ B.tril().double()).norm() / exact.norm()) < 2e-5
    assert ((fill_lower(add_gram(None, A)).double() - A.double().T @ A.double()).norm() / exact.norm()) < 2e-5
    assert ((coarse_matmul(1e-4 * A, 1e7 * B).double() - 1e3 * exact).norm() / (1e3 * exact).norm()) < 1e-3


def test_triangular_inverse_by_halves() -> None:
    X = torch.randn(9000, 2500, generator=torch.Generator().manual_seed(0)).cuda() * torch.linspace(0.01, 3, 2500).cuda()
    H = X.T @ X / len(X)
    H.diagonal().add_(0.01 * H.diagonal().mean())
    R = torch.linalg.cholesky(H).T
    U = inverse_upper(R)
    assert torch.equal(U, U.triu())
    assert (R.double() @ U.double() - torch.eye(2500, device="cuda")).abs().max() < 2e-4
    assert (U.double() - torch.linalg.inv(R.double())).norm() / U.norm() < 1e-4
