from __future__ import annotations

import pytest

from examples.one_layer import main


def test_the_fairness_term_lowers_the_objective(capsys: pytest.CaptureFixture[str]) -> None:
    J = main()
    assert J["target"] < J["Fair-GPTQ"] < J["GPTQ"]
    printed = capsys.readouterr().out
    assert all(f"{value:.2f}" in printed for value in J.values())
    assert all(word in printed for word in ("H", "C", "target", "codes"))
