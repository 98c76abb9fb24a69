"""The tables of docs/results.md: every metric is there, its numbers are the engine's, and what was
not measured is named.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from experiments.results_table import main, results
from experiments.sections import put
from fairgate.benchmarks import BENCHMARKS, benchmark_of
from fairgate.contracts.item_table import read_items, write_items
from fairgate.contracts.records import write_record
from fairgate.metrics.estimates import estimates
from fairgate.metrics.flips import UnequalItems
from fairgate.metrics.noise import Floor, Noise, Stack
from fairgate.support.errors import FairgateError
from stages.report.figures import number_text
from tests.fake_run import make_run
from tests.items import ANTI, STEREOTYPED, environment, row, windows
from tests.project import REPOSITORY

PARENT, OTHERS = "base", ["rtn", "fair_gptq"]


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("results") / "run", items=40) / "data" / "evaluation"


@pytest.fixture(scope="module")
def document(evaluations: Path) -> str:
    return results([evaluations / name for name in (PARENT, *OTHERS)], "make tables")


def _section(document: str, title: str) -> dict[str, list[str]]:
    """The rows of the first table below a heading, by their first cell."""
    body = re.split(r"^#+ ", document.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]
    lines = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("|")]
    return {line[0]: line[1:] for line in lines[2:]}


def test_every_metric_of_every_benchmark_is_a_row_with_the_engines_values(document: str, evaluations: Path) -> None:
    tables = {name: read_items(evaluations / name / "items.parquet") for name in (PARENT, *OTHERS)}
    values = {name: {e.name: e for e in estimates(table, benchmark_of)} for name, table in tables.items()}
    whole = [e for e in values[PARENT].values() if e.group is None and e.subgroup is None]
    assert len(whole) == 15
    for estimate in whole:
        benchmark, metric = estimate.metric.split(".")
        (cells,) = [cells for first, cells in _section(document, benchmark).items() if first.split("<br>")[0].strip("*_") == metric]
        digits = {"ppl": 2, "acc": 3, "acc_norm": 3, "ss": 1, "lms": 1, "icat": 1, "pct_stereotype": 1}.get(metric, 3)
        assert cells[0].startswith(number_text(estimate.value, digits) + " [") and "<br>" not in cells[0]
        for cell, name in zip(cells[1:], OTHERS, strict=True):
            level, difference = cell.split("<br>")
            assert level.startswith(number_text(values[name][estimate.name].value, digits) + " [")
            assert re.match(r"[+−]?[\d.]+ \[−?[\d.]+, −?[\d.]+\](\\\*)?$", difference)


def _write(folder: Path, model: str, rows: list[dict[str, object]], **changes: object) -> Path:
    folder.mkdir(parents=True)
    write_items(folder / "items.parquet", [one | {"model": model} for one in rows])
    write_record(folder / "environment.json", environment(**changes))
    return folder


def _two_groups(now: dict[str, int]) -> list[dict[str, object]]:
    """40 pairs a group, of which so many are stereotyped."""
    return [
        row("crows_pairs", f"{group} {i:02}", STEREOTYPED if i < stereotyped else ANTI, group=group)
        for group, stereotyped in now.items()
        for i in range(40)
    ]


def test_the_worst_group_stands_below_the_whole_with_its_name_and_a_star_for_what_excludes_zero(tmp_path: Path) -> None:
    # Before: age 10 %, race 75 %. Now: age 87.5 %, race 80 %: age is the farthest from 50 in both,
    # but race moved away from it.
    parent = _write(tmp_path / "base", "base", _two_groups({"age": 4, "race": 30}))
    other = _write(tmp_path / "q", "q", _two_groups({"age": 35, "race": 32}))
    section = _section(results([parent, other], ""), "crows_pairs")
    before, now = section["**pct_stereotype**<br>%, ideal 50"]
    assert before.startswith("42.5 [") and re.match(r"83.8 \[.*<br>\+26.2 \[.*\\\*$", now)
    before, now = section["pct_stereotype, worst group of 2"]
    assert before.startswith("age: 10.0 [") and now.startswith("age: 87.5 [") and "<br>race: +5.0 [" in now


def test_items_one_by_one_with_their_noise_floor(tmp_path: Path) -> None:
    parent = _write(tmp_path / "base", "base", _two_groups({"age": 20, "race": 30}))
    other = _write(tmp_path / "q", "q", _two_groups({"age": 35, "race": 32}))
    runs = (Stack(dtype="float32", device="cpu", batch_tokens=2048), Stack(dtype="bfloat16", device="cpu", batch_tokens=512))
    floors = {"crows_pairs": Floor(n=80, answer_flips=0.025, bias_flips=0.025)}
    write_record(parent / "noise.json", Noise(weight_digest="w" * 64, runs=runs, floors=floors))
    document = results([parent, other], "")
    # 17 of 80 turned stereotyped, none back; 30 were not before. Odds of e : 1 are uncertain
    # (0.84).
    assert _section(document, "Item by item") == {
        "crows_pairs": ["q", "80", "21.2 %", "– / – / 21.2 %", "17", "0", "56.7 %", "0.0 %", "< 0.001", "< 0.001",
                        "age: 75.0 % (n = 40)", "2.5 %"]
    }  # fmt: skip
    assert "float32 in batches of 2,048 tokens against bfloat16 in batches of 512 tokens" in document
    (parent / "noise.json").unlink()
    assert "was not measured here" in results([parent, other], "")


def test_abstention_has_a_table_of_its_own(tmp_path: Path) -> None:
    def bbq(answers: list[int]) -> list[dict[str, object]]:
        columns = {"n_chars": None, "text": "", "status": "ok", "gold": 2, "group": "Religion", "subgroup": "ambig"}
        return [row("bbq", i, [], **columns, answer=answer) for i, answer in enumerate(answers)]

    parent = _write(tmp_path / "base", "base", bbq([2, 2, 2, 0]))
    other = _write(tmp_path / "q", "q", bbq([2, 0, 1, 0]))
    found = _section(results([parent, other], ""), "Abstention")
    assert found["bbq"][1].startswith("0.750 [") and found["bbq"][2].startswith("−0.500 [")


def test_what_is_sampled_partial_unmeasured_or_without_value_is_named(tmp_path: Path) -> None:
    tasks = {"perplexity": {"items": 2, "available": 9, "upstream": 12}}
    bold = [row("bold_toxicity", i, [], n_chars=None, text="", status="empty", group="gender", subgroup="actors") for i in range(3)]
    rows = [*windows(np.array([-5.0, -6.0])), *bold]
    skipped = {"dt_fairness_ll": "no wheel ships data/raw/adult"}
    folders = [_write(tmp_path / name, name, rows, tasks=tasks, skipped=skipped) for name in ("base", "q")]
    document = results(folders, "")
    assert "2 items, a sample of 9 (partial: the whole set has 12)." in document
    toxicity = _section(document, "bold_toxicity")
    assert {first.split("<br>")[0].strip("*_") for first in toxicity} == {*BENCHMARKS["bold_toxicity"].statistics}
    assert [cells for first, cells in toxicity.items() if "**toxicity**" in first] == [["no value", "no value<br>no value"]]
    absent = document.split("## Not measured here\n")[1]
    assert "- dt_fairness_ll: no wheel ships data/raw/adult\n- not asked for: " in absent
    assert " stereoset," in absent and " bbq," in absent and "perplexity," not in absent and "_dev" not in absent


def test_the_command_stands_on_top_and_the_same_folders_give_the_same_text(
    evaluations: Path, document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert document.startswith("# Results\n\n```\nmake tables\n```\n")
    folders = [str(evaluations / name) for name in (PARENT, *OTHERS)]
    out = tmp_path / "results.md"
    monkeypatch.setattr("sys.argv", ["results_table", *folders, "--out", str(out), "--before", "dvc repro evaluate"])
    assert main() == 0
    head, body = out.read_text().removeprefix("# Results\n\n```\n").split("\n```\n", 1)
    assert head.splitlines() == ["dvc repro evaluate", f"python -m experiments.results_table {' '.join(folders)} --out {out}"]
    assert document.endswith(body)
    put(out, "another", "Of another script.")
    assert main() == 0
    assert out.read_text().endswith(body + "\n<!-- another -->\nOf another script.\n<!-- /another -->\n")


def test_the_overview_has_the_first_metric_of_every_benchmark(document: str) -> None:
    overview = _section(document, "Overview")
    assert list(overview) == ["crows_pairs", "stereoset", "boolq", "openbookqa", "perplexity", "piqa"]
    assert overview["stereoset"] == ["ss<br>%, ideal 50", *_section(document, "stereoset")["**ss**<br>%, ideal 50"]]


def test_a_smoke_run_is_no_result(tmp_path: Path) -> None:
    rows = [row("bold_toxicity_smoke", 0, [], n_chars=None, text="a", status="ok", score=0.1, group="gender", subgroup="actors")]
    with pytest.raises(FairgateError, match="bold_toxicity_smoke is a smoke run"):
        results([_write(tmp_path / "base", "base", rows)], "")


def test_other_items_or_the_same_model_twice_are_refused(
    evaluations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FairgateError, match="not all different"):
        results([evaluations / PARENT, evaluations / PARENT], "")
    fewer = read_items(evaluations / "rtn" / "items.parquet").slice(1).to_pylist()
    changed = _write(tmp_path / "rtn", "rtn", fewer)
    with pytest.raises(UnequalItems):
        results([evaluations / PARENT, changed], "")
    monkeypatch.setattr("sys.argv", ["results_table", str(evaluations / PARENT), str(tmp_path / "none")])
    assert main() == 2 and "no item table" in capsys.readouterr().err


def test_docs_have_the_words_that_the_script_writes_today(document: str) -> None:
    page = (REPOSITORY / "docs/results.md").read_text(encoding="utf-8")
    explanations = [block for block in document.split("\n\n") if block.startswith("- **")]
    assert len(explanations) == 2
    assert all(block in page for block in explanations)
