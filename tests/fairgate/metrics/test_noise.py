"""The noise floor: flips of one model between two runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairgate.benchmarks import benchmark_of
from fairgate.contracts.records import read_record, write_record
from fairgate.metrics.flips import UnequalItems
from fairgate.metrics.noise import Floor, Noise, Stack, floors, read_noise
from fairgate.support.errors import BadRecord, FairgateError
from tests.items import choices, crows, environment, table, windows


def test_flips_of_the_stack_by_benchmark_and_none_of_plain_text(tmp_path: Path) -> None:
    first, second = (
        table(*crows(np.array(sides, bool)), *choices("piqa", np.array(right, bool)), *windows(np.array([-5.0])))
        for sides, right in (([1, 0, 0, 0], [1, 1]), ([1, 1, 0, 0], [1, 0]))
    )
    found = floors(first, second, benchmark_of)
    assert found == {
        "crows_pairs": Floor(n=4, answer_flips=0.25, bias_flips=0.25),
        "piqa": Floor(n=2, answer_flips=0.5, bias_flips=None),
    }
    assert [found[name].rate for name in found] == [0.25, 0.5]
    runs = (Stack(dtype="float32", device="cpu", batch_tokens=2048), Stack(dtype="bfloat16", device="cpu", batch_tokens=512))
    noise = Noise(weight_digest="w" * 64, runs=runs, floors=found)
    write_record(tmp_path / "noise.json", noise)
    assert read_record(Noise, tmp_path / "noise.json") == noise
    with pytest.raises(FairgateError, match=r"no noise floor of 'stereoset' \(there: crows_pairs, piqa\)"):
        noise.floor("stereoset")


def test_runs_on_other_items_are_refused() -> None:
    rows = crows(np.ones(3, dtype=bool))
    with pytest.raises(UnequalItems):
        floors(table(*rows), table(*rows[:2]), benchmark_of)


def test_a_floor_is_read_where_it_is_and_refused_where_it_is_of_other_weights(tmp_path: Path) -> None:
    assert read_noise(tmp_path, environment()) is None
    runs = (Stack(dtype="float32", device="cpu", batch_tokens=2048), Stack(dtype="bfloat16", device="cpu", batch_tokens=512))
    noise = Noise(weight_digest="w" * 64, runs=runs, floors={})
    write_record(tmp_path / "noise.json", noise)
    assert read_noise(tmp_path, environment(weight_digest="w" * 64)) == noise
    with pytest.raises(BadRecord, match="measured on weights wwwwwwwwwwww instead of bbbbbbbbbbbb"):
        read_noise(tmp_path, environment(weight_digest="b" * 64))
