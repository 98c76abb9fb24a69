from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.quantize.core.columns import round_nearest
from stages.quantize.core.grid import Grid


def test_symmetric_four_bit_grid_is_the_documented_one() -> None:
    scale, zero = Grid(4, -1, True).fit(torch.tensor([[-0.5, 0.25, 1.5]]))
    assert scale.item() == pytest.approx(2 * 1.5 / 15, rel=1e-3)
    assert zero.item() == 8


def test_asymmetric_grid_covers_an_all_positive_group_without_zero_point_zero() -> None:
    W = torch.tensor([[0.0, 0.5, 1.0, 3.0]])
    scale, zero = Grid(4, -1, False).fit(W)
    assert zero.item() == 1
    assert Grid(4, -1, False).codes(W, scale, zero).max() == 15
    assert (15 - zero) * scale == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_nearest_rounding_stays_within_a_step(bits: int, symmetric: bool, seed: int) -> None:
    W = torch.randn(4, 32, generator=torch.Generator().manual_seed(seed))
    rounded = round_nearest(W, Grid(bits, 16, symmetric))
    step = rounded.scale.repeat_interleave(16, dim=1)
    # Half a step, or a whole one at the top of the symmetric grid (it has one point more below
    # zero than above). A scale rounded to float16 moves the last code by up to top / 2^11 steps.
    tolerance = (1.0 if symmetric else 0.5) + 2**bits / 2**11 + 0.01
    assert ((rounded.Q - W).abs() <= step * tolerance).all()


def test_a_group_of_zeros_stays_zero() -> None:
    rounded = round_nearest(torch.zeros(2, 32), Grid(4, 32, True))
    assert rounded.Q.abs().max() == 0
    assert torch.isfinite(rounded.scale).all()


def test_scales_survive_storage_in_float16() -> None:
    scale = round_nearest(torch.randn(8, 64) * 1e-3, Grid(4, 32, False)).scale
    assert torch.equal(scale, scale.half().float())


def test_clipping_never_errs_more_and_helps_where_one_weight_stands_out() -> None:
    W = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    W[:, 5] = 4.0
    for bits in (2, 3, 4):
        plain, clipped = (round_nearest(W, Grid(bits, 32, False, clip=clip)) for clip in (False, True))
        errors = [(rounded.Q - W).square().view(8, 2, 32).sum(2) for rounded in (plain, clipped)]
        assert (errors[1] <= errors[0]).all()
        assert errors[1].sum() < 0.98 * errors[0].sum()
        assert torch.equal(clipped.scale, clipped.scale.half().float())


def test_zero_point_zero_is_used_where_the_format_has_it() -> None:
    W = torch.tensor([[0.0, 0.5, 1.0, 3.0]])
    grid = Grid(2, -1, False, lowest_zero=0)
    scale, zero = grid.fit(W)
    assert (scale.item(), zero.item()) == (1.0, 0)
    assert grid.codes(W, scale, zero).tolist() == [[0, 0, 1, 3]]
