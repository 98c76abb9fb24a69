from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from stages.quantize.core import reference
from stages.quantize.core.columns import StaticScales, round_columns, round_nearest
from stages.quantize.core.fair import NotFinite, NotPositiveDefinite, factorize, objective, shift, solve
from stages.quantize.core.grid import Grid
from stages.quantize.core.names import Mode

GRID = Grid(4, 16, True)


def _problem(alpha: float = 0.5, **kwargs: int) -> tuple[Tensor, Tensor, Tensor]:
    W, H, C, _ = reference.problem(**kwargs)
    return W, H, 2 * alpha / 20 * C


def _single(*tensors: Tensor) -> list[Tensor]:
    return [tensor.float() for tensor in tensors]


def test_factor_is_upper_and_inverts_the_damped_matrix() -> None:
    _, H, _ = _problem()
    factor = factorize(H.float(), 0.01)
    U = factor.U.double()
    assert factor.damping == 0.01
    assert torch.equal(U, U.triu())
    assert torch.allclose(U.T @ U @ reference.damp(H, 0.01), torch.eye(32, dtype=torch.float64), atol=1e-4)  # float32, condition ~ 1e3


def test_damping_ladder_records_what_it_needed() -> None:
    A = torch.diag(torch.tensor([1.0, 1.0, 1.0, -0.008]))  # mean diagonal 0.748: indefinite at damping 0.01, definite one step later
    factor = factorize(A, 0.01)
    assert factor.damping == pytest.approx(0.0125)
    assert factor.tried == pytest.approx([0.01, 0.0125])


def test_non_finite_hessian_is_an_error_and_indefinite_one_is_a_counted_fallback() -> None:
    W, H, B = _single(*_problem())
    with pytest.raises(NotFinite):
        factorize(H.index_put((torch.tensor([0]), torch.tensor([0])), torch.tensor(float("nan"))), 0.01)
    indefinite = -torch.eye(32)
    with pytest.raises(NotPositiveDefinite):
        factorize(indefinite, 0.01)
    solved = solve(W, indefinite, B * 0.001, GRID, Mode.exact, 0.01)
    assert solved.fallback
    assert solved.damping is None
    assert torch.equal(solved.rounded.codes, round_nearest(W, GRID).codes)
    assert solved.tried["T"] == pytest.approx([0.01 + step * 0.0025 for step in range(41)])


def test_a_matrix_that_only_shifts_has_its_ladder_recorded_too() -> None:
    """Under authors-sum the loop's H factorizes at once, and A, which makes the shift, does not."""
    W, H, _ = _single(*_problem())
    lean = torch.zeros(32)
    lean[3] = -1.012 * H[3, 3] - 0.01 * (H.trace() - H[3, 3]) / 32
    tried = solve(W, torch.diag(H.diagonal()), torch.diag(lean), GRID, Mode.authors_sum, 0.01).tried
    assert len(tried["H"]) == 1
    assert len(tried["T"]) > 1


@pytest.mark.parametrize(
    ("name", "message"), [("W", "the weight holds 1 NaN"), ("H", "the Hessian holds"), ("B", "pair differences holds 1 NaN")]
)
@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_not_finite_is_never_rounded(name: str, message: str, mode: Mode) -> None:
    matrices = dict(zip("WHB", _single(*_problem()), strict=True))
    matrices[name][3, 3] = float("inf" if name == "H" else "nan")
    with pytest.raises(NotFinite, match=message):
        solve(*matrices.values(), GRID, mode, 0.01)


@pytest.mark.parametrize(
    "grid", [Grid(2, 16, False), Grid(3, 32, True), Grid(4, 16, True), Grid(8, -1, False), Grid(3, 16, False, clip=True)]
)
def test_column_loop_matches_the_reference(grid: Grid) -> None:
    W, H, _ = _problem()
    A = reference.damp(H, 0.01)
    fast = round_columns(W.float(), factorize(H.float(), 0.01).U, grid).Q.double()
    slow = reference.gptq(W, A, grid)
    # A weight that lies on a rounding boundary may fall either way; the objective may not.
    assert (fast - slow).abs().gt(1e-4).float().mean() < 0.02
    assert objective(W, fast, A, 0 * A) == pytest.approx(float(objective(W, slow, A, 0 * A)), rel=0.02)


def test_blocks_wider_than_the_lazy_update_match_the_reference() -> None:
    W, H, _ = _problem(d=288, n=900)
    fast = round_columns(W.float(), factorize(H.float(), 0.01).U, Grid(4, 32, True)).Q.double()
    slow = reference.gptq(W, reference.damp(H, 0.01), Grid(4, 32, True))
    assert (fast - slow).abs().gt(1e-4).float().mean() < 0.02


def test_fixed_scales_are_used_as_they_are_by_the_group_of_each_column() -> None:
    W, H, _ = _problem()
    target, U = W.float(), factorize(H.float(), 0.01).U
    current = round_columns(target, U, GRID)
    again = round_columns(target, U, GRID, StaticScales(current.scale, current.zero, torch.arange(32) // 16))
    assert torch.equal(again.codes, current.codes)
    swapped = round_columns(target, U, GRID, StaticScales(current.scale, current.zero, 1 - torch.arange(32) // 16))
    assert not torch.equal(swapped.codes, current.codes)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("fair", [True, False])
def test_act_order_is_the_problem_permuted_and_put_back(mode: Mode, fair: bool) -> None:
    """By hand: permute W, H, B; shift; loop with the scales of the original groups; undo."""
    W, H, B = _problem()
    H[:, 7] *= 3
    H[7] *= 3
    grid = Grid(4, 16, False, static=True)
    solved = solve(*_single(W, H), B.float() if fair else None, grid, mode, 0.01, act_order=True)
    target, A = reference.target_and_hessian(W, H, B if fair else 0 * B, mode.value, 0.01)
    assert torch.allclose(solved.target.double(), target, atol=1e-3)
    order = A.diagonal().argsort(descending=True)
    assert int(order[0]) == 7
    scale, zero = grid.fit_groups(target.float())
    assert torch.allclose(solved.rounded.scale, scale, rtol=2e-3)
    Q = reference.gptq(target[:, order], A[order][:, order], grid, (scale.double(), zero.double(), order // 16))[:, order.argsort()]
    assert (solved.rounded.Q.double() - Q).abs().gt(1e-3).double().mean() < 0.03  # on a rounding boundary either way
    E = solved.rounded.Q.double() - target
    assert float(solved.rounded.loss.sum()) == pytest.approx(float((E @ A * E).sum()), rel=1e-3)


def test_order_of_equal_columns_is_their_own() -> None:
    """Static scales and no order: rounding left to right, and equal diagonals leave it so."""
    W, H, _ = _single(*_problem())
    H.diagonal().fill_(float(H.diagonal().max()))
    grid = Grid(4, 16, True, static=True)
    in_order, by_activity = (solve(W, H, None, grid, Mode.exact, 0.01, act_order).rounded for act_order in (False, True))
    assert torch.equal(in_order.codes, by_activity.codes)


def test_act_order_rounds_skewed_inputs_better() -> None:
    W, H, _ = _problem(r=64)
    size = torch.logspace(-2, 2, 32, dtype=torch.float64)
    H = size[:, None] * H * size
    W, H = _single(W, H)
    grid = Grid(3, 16, True, static=True)
    errors = [objective(W, solve(W, H, None, grid, Mode.exact, 0.0001, act).rounded.Q, H, 0 * H) for act in (False, True)]
    assert errors[1] < 0.7 * errors[0]


def test_loss_is_the_objective_around_the_target() -> None:
    W, H, _ = _problem()
    rounded = round_columns(W.float(), factorize(H.float(), 0.01).U, GRID)
    E = rounded.Q.double() - W
    assert float(rounded.loss.sum()) == pytest.approx(float((E @ reference.damp(H, 0.01) * E).sum()), rel=1e-4)


def test_stacking_rows_changes_nothing() -> None:
    W, H, B = _single(*_problem())
    whole = solve(W, H, B, GRID, Mode.exact, 0.01).rounded.Q
    parts = [solve(part, H, B, GRID, Mode.exact, 0.01).rounded.Q for part in W.split(4)]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-5)


def test_gptq_is_not_worse_than_nearest_on_the_inputs() -> None:
    W, H, _ = _single(*_problem())
    zero = torch.zeros_like(H)
    gptq = objective(W, solve(W, H, None, GRID, Mode.exact, 0.01).rounded.Q, H, zero)
    nearest = objective(W, round_nearest(W, GRID).Q, H, zero)
    assert gptq < nearest


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("alpha", [0.1, 2.0])
def test_modes_reproduce_their_formulas(mode: Mode, alpha: float) -> None:
    W, H, B = _problem(alpha)
    solved = solve(*_single(W, H, B), GRID, mode, 0.01)
    target, A = reference.target_and_hessian(W, H, B, mode.value, 0.01)
    scale = target.abs().max()
    assert torch.allclose(solved.target.double(), target, atol=float(1e-4 * scale))
    E = solved.rounded.Q.double() - target
    assert float(solved.rounded.loss.sum()) == pytest.approx(float((E @ A * E).sum()), rel=1e-3)


def test_exact_mode_has_the_lowest_objective_before_rounding() -> None:
    W, H, B = _problem(alpha=1.0)
    Hd = H + 0.01 * (H + B).diagonal().mean() * torch.eye(32, dtype=torch.float64)
    targets = {mode: reference.target_and_hessian(W, H, B, mode, 0.01)[0] for mode in ("exact", "authors", "authors-sum", "error-only")}
    J = {mode: float(objective(W, target, Hd, B)) for mode, target in targets.items()}
    assert J["exact"] == min(J.values())
    assert J["exact"] < J["error-only"]
    target = shift(*_single(W, B), factorize((H + B).float(), 0.01).U).double()
    assert float(objective(W, target, Hd, B)) == pytest.approx(J["exact"], rel=1e-6)


def test_exact_objective_with_rounding_is_least_squares_around_the_target() -> None:
    """Every candidate of a tiny grid: the best under J is the best under the closed form."""
    W, H, C, _ = reference.problem(r=1, d=3, n=12, pairs=4)
    B = 0.5 * C
    A = H + B
    target = W - W @ B @ A.inverse()
    points = [torch.tensor([q], dtype=torch.float64) * 0.5 for q in itertools.product(range(-3, 4), repeat=3)]
    best_J = min(points, key=lambda Q: float(objective(W, Q, H, B)))
    best_A = min(points, key=lambda Q: float(((Q - target) @ A * (Q - target)).sum()))
    assert torch.equal(best_J, best_A)


def test_no_pair_matrix_is_gptq_bit_for_bit() -> None:
    W, H, B = _single(*_problem())
    plain = solve(W, H, None, GRID, Mode.exact, 0.01).rounded
    again = solve(W, H, None, GRID, Mode.authors, 0.01).rounded
    assert torch.equal(plain.codes, again.codes)
    assert not torch.equal(plain.codes, solve(W, H, B, GRID, Mode.exact, 0.01).rounded.codes)


def test_top_eigenvalue_is_the_generalized_one() -> None:
    W, H, B = _problem(alpha=1.0)
    Hd = reference.damp(H + B, 0.01) - B
    expected = float(torch.linalg.eigvals(torch.linalg.solve(Hd, B)).real.max())
    assert solve(*_single(W, H, B), GRID, Mode.exact, 0.01).top_eigenvalue == pytest.approx(expected, rel=0.02)


def test_dead_channel_is_zeroed_and_counted() -> None:
    W, H, _ = _single(*_problem())
    H[5], H[:, 5] = 0, 0
    solved = solve(W, H, None, GRID, Mode.exact, 0.01)
    assert solved.dead == 1
    assert solved.rounded.Q[:, 5].abs().max() == 0
