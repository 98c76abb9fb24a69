from __future__ import annotations

import doctest
import itertools

import torch

from stages.quantize.core import reference
from stages.quantize.core.grid import Grid


def test_the_worked_examples_are_true() -> None:
    results = doctest.testmod(reference)
    assert results.attempted >= 8
    assert results.failed == 0


def test_on_two_columns_gptq_moves_the_second_to_its_best_place() -> None:
    """By brute force: among all second codes, given the first, none has a lower error."""
    grid = Grid(4, -1, True)
    W, H, _, _ = reference.problem(r=4, d=2, n=12, pairs=3)
    scale, zero = (fitted.double()[:, None] for fitted in grid.fit(W.float()))
    Q = reference.gptq(W, H, grid, (scale, zero, torch.tensor([0, 0])))
    for w, q, s, z in zip(W, Q, scale[:, 0], zero[:, 0], strict=True):
        errors = {code: w - torch.stack([q[0], s * (code - z)]) for code in range(16)}
        best = min(errors, key=lambda code: float(errors[code] @ H @ errors[code]))
        assert torch.isclose(q[1], s * (best - z))


def test_a_diagonal_hessian_leaves_nothing_to_make_up_for() -> None:
    grid = Grid(3, 4, False)
    W, H, _, _ = reference.problem(r=4, d=8, n=24, pairs=3)
    Q = reference.gptq(W, torch.diag(H.diagonal()), grid)
    for row, start in itertools.product(range(4), (0, 4)):
        group = W[row : row + 1, start : start + 4]
        scale, zero = (fitted.double() for fitted in grid.fit(group.float()))
        assert torch.allclose(Q[row, start : start + 4], scale * (grid.codes(group[0], scale, zero) - zero))
