from __future__ import annotations

import pytest
import torch

from stages.quantize.contributions import by_input, by_output
from tests.stages.quantize import reference


def test_contributions_of_inputs_and_outputs_add_up_to_the_penalty() -> None:
    Q, _, C, _ = reference.problem()
    F = float((Q @ C @ Q.T).trace())
    assert float(by_input(Q, C).sum()) == pytest.approx(F)
    assert float(by_output(Q, C).sum()) == pytest.approx(F)
    assert by_input(Q, C).shape == (32,)
    assert by_output(Q, C).shape == (12,)
    assert by_output(Q, C).min() >= 0


def test_an_input_is_signed_and_zero_where_no_difference_reaches_it() -> None:
    Q = torch.tensor([[1.0, -1.0, 2.0]])
    C = torch.tensor([[1.0, 0.9, 0.0], [0.9, 0.5, 0.0], [0.0, 0.0, 0.0]])
    assert by_input(Q, C).tolist() == pytest.approx([0.1, -0.4, 0.0])
