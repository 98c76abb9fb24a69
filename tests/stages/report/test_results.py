from __future__ import annotations

import pytest

from fairgate.benchmarks import benchmark_of
from fairgate.contracts.item_table import read_items
from fairgate.metrics.estimates import metrics_of
from stages.report.data import gather
from stages.report.results import BIAS


@pytest.fixture(scope="module")
def report(run):  # type: ignore[no-untyped-def]
    return gather(run, run / "params.yaml")


def test_levels_are_those_of_the_engine_inside_their_intervals(report, run) -> None:  # type: ignore[no-untyped-def]
    metrics = metrics_of(read_items(run / "data/evaluation/gptq/items.parquet"), benchmark_of)
    assert report.result("piqa.acc").levels["gptq"].value == pytest.approx(100 * metrics["piqa.acc"])
    for cell in report.results:
        for estimate in cell.levels.values():
            assert estimate.low <= estimate.value <= estimate.high


def test_changes_of_bias_are_changes_of_the_distance_from_neutral(report) -> None:  # type: ignore[no-untyped-def]
    for cell in (c for c in report.results if c.metric in BIAS):
        base = abs(cell.levels["base"].value - 50)
        assert "base" not in cell.changes
        assert cell.changes["rtn"].value == pytest.approx(abs(cell.levels["rtn"].value - 50) - base)


def test_candidate_stands_beside_every_other_quantized_recipe(report) -> None:  # type: ignore[no-untyped-def]
    cell = report.result("piqa.acc")
    assert set(cell.versus) == {"rtn", "gptq"}
    expected = cell.levels["fair_gptq"].value - cell.levels["rtn"].value
    assert cell.versus["rtn"].value == pytest.approx(expected) and cell.versus["rtn"].low <= expected <= cell.versus["rtn"].high


def test_paired_intervals_are_narrower_than_unpaired_ones(report) -> None:  # type: ignore[no-untyped-def]
    cell = report.result("perplexity.ppl")
    change, level = cell.changes["gptq"], cell.levels["gptq"]
    assert change.high - change.low < 0.5 * (level.high - level.low)


def test_flips_explain_the_change_of_accuracy(report) -> None:  # type: ignore[no-untyped-def]
    for flip in (f for f in report.flips if f.kind == "right or wrong"):
        change = report.result(f"{flip.benchmark}.acc").changes[flip.recipe].value
        assert 100 * (flip.better - flip.worse) / flip.n == pytest.approx(change)


def test_power_follows_the_number_of_items(report) -> None:  # type: ignore[no-untyped-def]
    whole = next(p for p in report.power if p.name == "CrowS-Pairs")
    assert whole.detectable == pytest.approx(100 * 2.4865 * (whole.flipped / whole.n) ** 0.5, rel=1e-3)
