from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from stages.quantize.core.columns import Rounded, round_nearest
from stages.quantize.core.grid import Grid
from stages.quantize.methods.learned.offsets import Offsets, attach, on_grid, straight_through, unquantized
from stages.quantize.model.calibration_pass import weight_of


def _start(W: Tensor, grid: Grid, moved: int = 0) -> Rounded:
    """Nearest rounding, with every third code `moved` away from it."""
    rounded = round_nearest(W, grid)
    codes = rounded.codes.int()
    codes[:, ::3] = (codes[:, ::3] + moved).clamp(0, grid.top)
    return Rounded(codes.to(torch.uint8), rounded.scale, rounded.zero, rounded.loss)


def _offsets(W: Tensor, start: Rounded, grid: Grid) -> Offsets:
    module = nn.Linear(W.shape[1], W.shape[0], bias=False, dtype=W.dtype)
    module.weight.data = W.clone()
    return Offsets({"m": module}, {"m": start}, grid, torch.float32)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("moved", [0, 1, -2])
def test_it_starts_from_the_codes_it_is_given(symmetric: bool, dtype: torch.dtype, moved: int) -> None:
    W = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    grid = Grid(4, 32, symmetric)
    start = _start(W.float(), grid, moved)
    rounded = _offsets(W, start, grid).rounded("m")
    assert torch.equal(rounded.codes, start.codes)
    assert torch.equal(rounded.scale, start.scale)


def test_weights_that_round_to_their_code_stay_as_they_are() -> None:
    W = torch.randn(32, 64)
    grid = Grid(4, 32, True)
    assert _offsets(W, _start(W, grid), grid).W is None
    moved = _offsets(W, _start(W, grid, 1), grid).W
    assert moved is not None
    same = moved.view(32, 64) == W
    assert same[:, 1].all()
    assert not same[:, 0].all()


def test_gradient_is_that_of_the_straight_through_estimator() -> None:
    generator = torch.Generator().manual_seed(1)
    W, G = torch.randn(2, 16, 16, generator=generator).unbind()
    rounded = round_nearest(W.view(8, 32), Grid(2, 16, True))
    scale, zero = rounded.scale.view(-1, 1), rounded.zero.view(-1, 1)
    V = (torch.rand(16, 16, generator=generator) - 0.5).requires_grad_()
    clip = (0.6 + 0.3 * torch.rand(16, 1, generator=generator)).requires_grad_()
    top = 3

    plain = clip * scale
    s = plain + (plain.half().float() - plain).detach()
    inner = W / s + V
    raw = inner + (inner.round() - inner).detach() + zero
    Q = s * (raw.clamp(0, top) - zero)
    (Q * G).sum().backward()
    assert ((raw < 0) | (raw > top)).any()
    with torch.no_grad():
        assert torch.allclose(on_grid(W, V, clip, scale, zero, top), Q)
        dV, dclip = straight_through(G, W, V, clip, scale, zero, top)
    assert torch.allclose(dV, V.grad, atol=1e-6)
    assert torch.allclose(dclip, clip.grad, atol=1e-4)


@pytest.mark.parametrize("module", [nn.Linear(64, 32), Conv1D(32, 64)])
def test_a_module_computes_with_its_rounded_weight_or_with_its_own(module: nn.Linear | Conv1D) -> None:
    grid, x = Grid(4, 32, True), torch.randn(3, 64)
    before = module(x).detach()
    start = {"m": round_nearest(weight_of(module).detach(), grid)}
    offsets = attach([{"m": module}], start, {"m": grid}, torch.float32)
    assert torch.allclose(module(x), x @ start["m"].Q.T + module.bias, atol=1e-6)
    with unquantized(offsets):
        assert torch.allclose(module(x), before, atol=1e-6)
    assert not torch.allclose(module(x), before, atol=1e-6)
    module(x).sum().backward()
    assert torch.allclose(offsets[0].G.view(32, 64), x.sum(0).expand(32, 64), atol=1e-5)


def test_a_step_goes_against_the_sign_and_stays_inside() -> None:
    W = torch.randn(32, 64, generator=torch.Generator().manual_seed(2))
    grid = Grid(4, 32, True)
    offsets = _offsets(W, round_nearest(W, grid), grid)
    offsets.G.fill_(1.0)
    offsets.step(0.2, 0.0)
    assert set(offsets.V.unique().tolist()) <= {-torch.tensor(0.2).item(), 0.0}
    for _ in range(5):
        offsets.step(0.2, 0.3)
    assert offsets.V.min() == -0.5
    assert offsets.clip.min() >= 0.5
    offsets.refresh()
    assert offsets.G.abs().max() == 0
    assert (offsets.Q.view(32, 64) <= round_nearest(W, grid).Q + 1e-6).float().mean() > 0.9
