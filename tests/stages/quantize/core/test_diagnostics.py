from __future__ import annotations

import pytest
import torch

from fairgate.contracts.contributions import STATES, rolled_up
from stages.quantize.core import reference
from stages.quantize.core.diagnostics import TOP, channel_contributions, generalized_eigenvalue, module_contributions, top_eigenvalue
from stages.quantize.core.fair import factorize


def test_contributions_of_inputs_and_outputs_add_up_to_the_penalty() -> None:
    Q, _, C, _ = reference.problem()
    F = float((Q @ C @ Q.T).trace())
    f, g = channel_contributions(Q, C)
    assert [float(f.sum()), float(g.sum())] == pytest.approx([F, F])
    assert (f.shape, g.shape) == ((32,), (12,))
    assert g.min() >= 0


def test_an_input_is_signed_and_zero_where_no_difference_reaches_it() -> None:
    Q = torch.tensor([[1.0, -1.0, 2.0]])
    C = torch.tensor([[1.0, 0.9, 0.0], [0.9, 0.5, 0.0], [0.0, 0.0, 0.0]])
    assert channel_contributions(Q, C)[0].tolist() == pytest.approx([0.1, -0.4, 0.0])


def test_rows_of_a_module_are_its_penalty_its_largest_channels_and_the_rest() -> None:
    W, _, C, _ = reference.problem()
    states = {"weight": W, "target": W * 0.5, "quantized": (W * 4).round() / 4}
    rows = module_contributions("m", 0, "k", {name: Q.float() for name, Q in states.items()}, C.float(), pairs=20)
    module, *channels = rows
    for name, Q in states.items():
        F = float((Q @ C @ Q.T).trace()) / 20  # in float64, by another route
        assert getattr(module, name) == pytest.approx(F, rel=1e-5)
        for level in ("input", "output"):
            assert sum(getattr(row, name) for row in channels if row.level == level) == pytest.approx(F, rel=1e-5)
    listed = [row.channel for row in channels if row.level == "input"]
    assert len(listed) == TOP + 1 and listed[-1] is None
    exact = torch.stack([(Q * (Q @ C)).sum(0).abs() for Q in states.values()]).amax(0)
    assert listed[:-1] == exact.argsort(descending=True)[:TOP].tolist()
    assert module.alpha_zero is None


def test_the_eigenvalue_is_the_same_from_the_factor_of_H_and_from_that_of_the_sum() -> None:
    _, H, C, _ = reference.problem()
    B = 0.1 * C
    H = reference.damp(H, 0.01)
    expected = float(torch.linalg.eigvals(torch.linalg.solve(H, B)).real.max())
    of_H, of_sum = (factorize(matrix.float(), 0.0).U for matrix in (H, H + B))
    assert top_eigenvalue(B.float(), of_H) == pytest.approx(expected, rel=0.02)
    assert generalized_eigenvalue(B.float(), of_H, of_sum=False) == pytest.approx(expected, rel=0.02)
    assert generalized_eigenvalue(B.float(), of_sum, of_sum=True) == pytest.approx(expected, rel=0.02)


def test_modules_add_up_to_types_blocks_and_model() -> None:
    W, _, C, _ = reference.problem()
    modules = []
    for block in (0, 1):
        for kind in ("q", "o"):
            Q = (W * (1 + block)).float()
            modules += module_contributions(f"{block}.{kind}", block, kind, dict.fromkeys(STATES, Q), C.float(), pairs=1)
    model, *rest = rolled_up(modules)
    penalty = float((W @ C @ W.T).trace())
    assert model.weight == pytest.approx(10 * penalty, rel=1e-5)
    assert {row.kind: row.weight for row in rest if row.level == "kind"} == pytest.approx({"q": 5 * penalty, "o": 5 * penalty}, rel=1e-5)
    assert {row.block: row.weight for row in rest if row.level == "block"} == pytest.approx({0: 2 * penalty, 1: 8 * penalty}, rel=1e-5)
