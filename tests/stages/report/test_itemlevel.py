"""Beyond the headline: single items, guards and further benchmarks, with the engine's numbers."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fairgate.benchmarks import benchmark_of, items_of
from fairgate.contracts.item_table import ITEMS, read_items, write_items
from fairgate.contracts.records import Environment, read_record, write_record
from fairgate.metrics.estimates import derive, metrics_of
from fairgate.metrics.flips import flips, strata
from fairgate.metrics.noise import Floor, Noise, Stack
from fairgate.support.files import write_json
from stages.report import page
from stages.report.data import Report, gather
from tests.items import row

RECIPES = ("base", "rtn", "gptq", "fair_gptq")
CATEGORIES = ("Gender_identity", "Religion")


@pytest.fixture(scope="module")
def wider(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with a benchmark beyond the headline, a task that was skipped, and a noise floor."""
    folder = tmp_path_factory.mktemp("wider") / "run"
    shutil.copytree(run, folder)
    generator = np.random.default_rng(0)
    before = generator.normal(-9, 2, (120, 3))
    for recipe in RECIPES:
        logliks = before + (0 if recipe == "base" else generator.normal(0, 1, before.shape))
        rows = read_items(folder / "data" / "evaluation" / recipe / "items.parquet").to_pylist()
        rows += [
            row("bbq_ll", i, list(logliks[i]), model=recipe, cluster=str(i // 4), group=CATEGORIES[i // 4 % 2],
                subgroup=("ambig", "disambig")[i % 2], gold=2 if i % 2 == 0 else 0)
            for i in range(len(before))
        ]  # fmt: skip
        _replace(folder / "data" / "evaluation" / recipe, rows)
    runs = (Stack(dtype="float32", device="cpu", batch_tokens=2048), Stack(dtype="bfloat16", device="cpu", batch_tokens=512))
    floors = {"bbq_ll": Floor(n=120, answer_flips=0.0125, bias_flips=0.0125)}
    write_record(folder / "data" / "evaluation" / "base" / "noise.json", Noise(weight_digest="w" * 64, runs=runs, floors=floors))
    return folder


def _replace(folder: Path, rows: list[dict[str, object]]) -> None:
    table = derive(pa.Table.from_pylist(rows, schema=ITEMS), benchmark_of)
    write_items(folder / "items.parquet", table.to_pylist())
    write_json(folder / "metrics.json", metrics_of(table, benchmark_of))
    record = read_record(Environment, folder / "environment.json")
    write_record(folder / "environment.json", record.model_copy(update={"skipped": {"dt_fairness_ll": "no such folder"}}))


@pytest.fixture(scope="module")
def report(wider: Path) -> Report:
    return gather(wider, wider / "params.yaml")


def _text(report: Report) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page.render(report))))


def test_items_are_compared_with_their_own_parent(report: Report, wider: Path) -> None:
    tables = {name: read_items(wider / "data" / "evaluation" / name / "items.parquet") for name in ("base", "gptq")}
    found = {(item.benchmark, item.model): item for item in report.items}
    benchmarks = ("bbq_ll", "boolq", "crows_pairs", "openbookqa", "piqa", "stereoset")
    assert list(found) == [(name, recipe) for name in benchmarks for recipe in RECIPES[1:]]
    q, b = (items_of(tables[name], "bbq_ll") for name in ("gptq", "base"))
    assert found["bbq_ll", "gptq"].flips == flips(q, b) and found["bbq_ll", "gptq"].strata == strata(q, b)
    assert [part.name for part in found["bbq_ll", "gptq"].parts] == [*CATEGORIES, "ambig", "disambig"]
    for item in report.items:
        assert (item.adjusted is None) is (item.flips.p_value is None)
        assert item.adjusted is None or item.flips.p_value is None or item.adjusted >= item.flips.p_value


def test_the_page_marks_flips_of_low_entropy_and_says_what_the_noise_is(report: Report) -> None:
    alarming = sum(stratum.alarming for item in report.items for stratum in item.strata)
    source = page.render(report)
    assert alarming > 0 and source.count('<strong class="alarm">') == alarming
    text = _text(report)
    assert text.count(" bbq_ll Religion ") == 3 and "Every group and subgroup" in text
    assert "against itself (float32 in batches of 2,048 tokens against bfloat16 in batches of 512 tokens)" in text
    rows = [part for part in source.split("<tr") if ">bbq_ll<small>n = 120<" in part]
    assert len(rows) == 3 and all('<td class="r">1.2 %</td></tr>' in part for part in rows)


def test_guards_stand_beside_every_bias_score_and_nothing_else_of_the_headline(report: Report) -> None:
    shown = {(line.benchmark, line.metric): line for line in reversed(report.rows) if line.kind != "further"}
    assert set(shown) == {
        ("stereoset", "lms"), ("stereoset", "loglik_stereotype"), ("stereoset", "loglik_anti"),
        ("crows_pairs", "loglik_stereotype"), ("crows_pairs", "loglik_anti"), ("bbq_ll", "accuracy_amb"),
    }  # fmt: skip
    entry = shown["stereoset", "lms"].entries["rtn"]
    cell = report.result("stereoset.lms")
    assert cell is not None and entry.level == cell.levels["rtn"] and entry.change == cell.changes["rtn"]
    assert shown["stereoset", "lms"].entries["base"].change is None
    assert "bbq_ll: “unknown” to ambiguous questions" in _text(report)


def test_every_metric_of_a_further_benchmark_is_shown_with_its_worst_group(report: Report) -> None:
    lines = [line for line in report.rows if line.benchmark == "bbq_ll"]
    assert {line.metric for line in lines} == {"s_amb", "s_dis", "accuracy_amb", "accuracy_dis"}
    for metric in ("s_amb", "accuracy_dis"):
        whole, worst = [line for line in lines if line.metric == metric]
        values = {name: report.recipe("gptq").metrics[f"bbq_ll.{metric}.{name}"] for name in CATEGORIES}
        pick = min(values, key=lambda name: values[name]) if metric == "accuracy_dis" else max(values, key=lambda name: abs(values[name]))
        assert worst.note == "worst group of 2" and worst.entries["gptq"].part == pick
        assert worst.entries["gptq"].level.value == pytest.approx(values[pick])
        assert whole.entries["gptq"].level.value == pytest.approx(report.recipe("gptq").metrics[f"bbq_ll.{metric}"])
    assert 'id="further"' in page.render(report)


def test_what_was_judged_and_what_was_skipped_is_named(report: Report) -> None:
    assert re.search(r"Items judged: bbq_ll 120 \(all\), BoolQ 60, .*StereoSet 60\. These", _text(report))
    assert "Not measured: dt_fairness_ll (no such folder)." in _text(report)


def test_a_run_without_them_says_so(run: Path) -> None:
    text = _text(gather(run, run / "params.yaml"))
    assert "The noise floor of the software itself was not measured in this run." in text
    assert "Further benchmarks" not in text and "Not measured:" not in text
