from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.agreement import apart, exact
from benchmarks.evaluate_gpu import ours
from stages.evaluate.catalogue import Catalogue
from tests.stages.evaluate.raw import write_raw, write_split, write_tasks
from tests.tiny import make_tiny_llama


def test_worst_and_share_of_the_differences() -> None:
    one = {("t", "a", 0): -1.0, ("t", "a", 1): -2.0, ("t", "b", 0): -3.0, ("t", "b", 1): -4.0}
    other = one | {("t", "a", 1): -2.00005, ("t", "b", 0): -2.5}
    found = apart(one, other)
    assert found["max"] == 0.5
    assert found["median"] == pytest.approx(2.5e-5)
    assert found["share_above_1e-4"] == 0.25
    assert (found["where"], found["log_likelihood"]) == (["t", "b", 0], -2.5)
    with pytest.raises(RuntimeError, match="1 requests of one side alone"):
        apart(one, {key: value for key, value in other.items() if key != ("t", "b", 1)})


def test_reference_scores_what_fairgate_scores(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    catalogue = Catalogue(tmp_path / "raw", write_split(tmp_path / "split.json"), write_tasks(tmp_path / "tasks"))
    arguments = Namespace(base=make_tiny_llama(tmp_path / "llama"), peer_tasks=["crows_pairs", "piqa"], limit=8)
    found = apart(exact(arguments, catalogue), ours(arguments, catalogue, 8))
    assert 0 < found["max"] < 2e-5  # float32's rounding, and no other text or token
