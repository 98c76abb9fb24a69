from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from stages.quantize.columns import Rounded, round_nearest
from stages.quantize.grid import Grid
from stages.quantize.learned.offsets import Offsets, attach, unquantized


def _start(W: Tensor, grid: Grid, moved: int = 0) -> Rounded:
    """Nearest rounding, with every third code `moved` away from it."""
    rounded = round_nearest(W, grid)
    codes = rounded.codes.int()
    codes[:, ::3] = (codes[:, ::3] + moved).clamp(0, grid.top)
    return Rounded(codes.to(torch.uint8), rounded.scale, rounded.zero, rounded.loss)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("moved", [0, 1, -2])
def test_it_starts_from_the_codes_it_is_given(symmetric: bool, dtype: torch.dtype, moved: int) -> None:
    W = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    grid = Grid(4, 32, symmetric)
    start = _start(W.float(), grid, moved)
    rounded = Offsets(W, start, grid, torch.float32, transposed=False).rounded(W)
    assert torch.equal(rounded.codes, start.codes)
    assert torch.equal(rounded.scale, start.scale)


def test_weights_that_round_to_their_code_stay_as_they_are() -> None:
    W = torch.randn(32, 64)
    grid = Grid(4, 32, True)
    assert Offsets(W, _start(W, grid), grid, torch.float32, transposed=False).W is None
    moved = Offsets(W, _start(W, grid, 1), grid, torch.float32, transposed=False).W
    same = moved.view(32, 64) == W
    assert same[:, 1].all()
    assert not same[:, 0].all()


def test_gradient_is_that_of_the_straight_through_estimator() -> None:
    W, G = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(1)).unbind()
    grid = Grid(2, 16, True)
    rounded = round_nearest(W, grid)
    offsets = Offsets(W, rounded, grid, torch.float32, transposed=False)
    with torch.no_grad():
        offsets.V.uniform_(-0.4, 0.4)
        offsets.clip.uniform_(0.6, 0.9)
    (offsets(W) * G).sum().backward()

    V, clip = (each.detach().clone().requires_grad_() for each in (offsets.V, offsets.clip))
    plain = clip * offsets.scale
    s = plain + (plain.half().float() - plain).detach()
    inner = W.view(8, 2, 16) / s + V
    raw = inner + (inner.round() - inner).detach() + offsets.zero
    Q = s * (raw.clamp(0, grid.top) - offsets.zero)
    (Q.reshape(8, 32) * G).sum().backward()
    assert torch.allclose(offsets(W), Q.reshape(8, 32))
    assert ((raw < 0) | (raw > grid.top)).any()
    assert torch.allclose(offsets.V.grad, V.grad, atol=1e-6)
    assert torch.allclose(offsets.clip.grad, clip.grad, atol=1e-4)


@pytest.mark.parametrize("module", [nn.Linear(64, 32), Conv1D(32, 64)])
def test_a_module_computes_with_its_rounded_weight_or_with_its_own(module: nn.Module) -> None:
    grid, x = Grid(4, 32, True), torch.randn(3, 64)
    before = module(x)
    W = module.weight.detach().T if isinstance(module, Conv1D) else module.weight.detach()
    start = {"m": round_nearest(W, grid)}
    offsets = attach({"m": module}, start, {"m": grid}, torch.float32)
    bias = module.bias
    assert torch.allclose(module(x), x @ start["m"].Q.T + bias, atol=1e-6)
    with unquantized(offsets):
        assert torch.equal(module(x), before)
    assert not torch.allclose(module(x), before)
    module(x).sum().backward()
    assert offsets["m"].V.grad is not None
    assert module.parametrizations.weight.original.grad is None
