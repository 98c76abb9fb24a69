"""Tables, plot and records of the experiment: values are the engine's, intervals hold items and
seeds, what is missing is named.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import t

from benchmarks.records import measurement, merge
from experiments.fair_rounding.cells import Cell, Declaration, chosen_recipes, read
from experiments.fair_rounding.estimates import Value, off, plain, ratio, study_of, worst_type
from experiments.fair_rounding.plot import front
from experiments.fair_rounding.records import MODEL
from experiments.fair_rounding.run import HERE, TEXT
from experiments.fair_rounding.table import diary, main
from fairgate.benchmarks import benchmark_of
from fairgate.metrics.estimates import derive, metrics_of
from fairgate.support.files import read_json, write_json
from tests.experiments.fair_rounding.experiment import made_up, write_cell
from tests.items import choices, row, stereoset, table, windows
from tests.project import REPOSITORY

CHOSEN = {
    family: {"recipe": {"method": "rtn", "bits": 4}, "chosen": family, "eligible": [], "rows": {}, "rule": rule.model_dump(mode="json")}
    for family, rule in read(HERE / "declaration.yaml").rules.items()
}
SS = plain(("stereoset.ss", None), "ss")


def _cells(out: Path, declared: Declaration) -> list[Cell]:
    write_json(out / "chosen.json", CHOSEN)
    return declared.cells("final", chosen_recipes(out))


def _cell(name: str, seed: int) -> Cell:
    declared = read(HERE / "declaration.yaml")
    return next(c for c in declared.cells("final", {f: {"method": "rtn"} for f in declared.rules}) if (c.label, c.seed) == (name, seed))


def _items(ppl: float = 20.0, sides: int = 6, right: int = 30) -> pa.Table:
    at = np.arange(40) * 7 % 20  # spread over the terms
    rows = [*stereoset(at < 2 * sides), *choices("piqa", np.arange(40) < right), *windows(np.full(12, -100 * np.log(ppl)))]
    return derive(table(*rows), benchmark_of)


def test_a_value_is_the_engines_and_a_mean_over_the_seeds(tmp_path: Path) -> None:
    cells = [_cell("base", 0), *(_cell("fair_round", seed) for seed in (0, 1))]
    for cell in cells:
        write_cell(tmp_path, cell)
    study, left_out = study_of(cells, tmp_path, "base", draws=200)
    assert not left_out
    expected = [metrics_of(made_up(cell), benchmark_of) for cell in cells]
    for metric in ("stereoset.ss", "stereoset.icat", "crows_pairs.pct_stereotype", "winogender.gap", "bbq_ll.s_amb", "hellaswag.acc_norm"):
        value = study.of(plain((metric, None), metric), "fair_round")
        assert value.by_seed == pytest.approx([one[metric] for one in expected[1:]], abs=1e-4), metric
        assert value.value == pytest.approx(np.mean(value.by_seed))
    of_type = study.of(plain(("stereoset.ss", "race"), "race"), "base")
    assert of_type.value == pytest.approx(expected[0]["stereoset.ss.race"])
    ppl = study.of(ratio(("wikitext2.ppl", None), "ppl"), "fair_round")
    assert ppl.by_seed[1] == pytest.approx(expected[2]["wikitext2.ppl"] / expected[0]["wikitext2.ppl"], rel=1e-6)


def test_the_spread_between_seeds_is_students_and_no_spread_adds_nothing(tmp_path: Path) -> None:
    cells = [_cell("base", 0), *(_cell("fair_round", seed) for seed in range(5)), *(_cell("learned", seed) for seed in range(5))]
    perplexities = [20.0, 21.0, 22.0, 23.0, 24.0]  # every window alike: seeds are all that varies
    for cell in cells:
        write_cell(tmp_path, cell, _items(perplexities[cell.seed] if cell.entry == "fair_round" else 20.0))
    study, _ = study_of(cells, tmp_path, "base")
    ppl = plain(("perplexity.ppl", None), "ppl")
    value = study.of(ppl, "fair_round")
    half = t.ppf(0.975, 4) * np.std(perplexities, ddof=1) / np.sqrt(5)
    assert value.value == pytest.approx(22.0)
    assert (value.high - value.low) / 2 == pytest.approx(half, rel=0.2)
    same = study.of(ppl, "learned")
    assert (same.low, same.high) == pytest.approx((20.0, 20.0))
    # Five equal seeds tell no more than one
    sides = [study.of(SS, label) for label in ("base", "learned")]
    assert (sides[0].low, sides[0].high) == pytest.approx((sides[1].low, sides[1].high))
    assert sides[0].low < sides[0].value < sides[0].high


def test_what_two_methods_share_cancels_in_their_difference(tmp_path: Path) -> None:
    cells = [_cell("base", 0), _cell("rtn", 0), _cell("gptq", 0)]
    for cell, sides in zip(cells, (6, 6, 2), strict=True):
        write_cell(tmp_path, cell, _items(sides=sides))
    study, _ = study_of(cells, tmp_path, "base")
    same = study.of(off(("stereoset.ss", None), 50, "off"), "rtn", "base")
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    less = study.of(SS, "gptq", "base")
    assert less.value == pytest.approx(-40)
    assert less.high < 0
    assert less.p < 0.05
    back = study.of(SS, "base", "gptq")
    assert (back.low, back.high) == pytest.approx((-less.high, -less.low))


def test_the_worst_type_is_the_farthest_from_neutral_on_either_side(tmp_path: Path) -> None:
    rows = [*stereoset(np.arange(40) % 10 < 4, groups=("gender", "race"))]
    for i, one in enumerate(rows):
        one["group"] = "gender" if i < 20 else "race"
        one["cluster"] = f"term {i // 5}"
        one["option_loglik"] = [-1.0, -2.0, -9.0] if i % 20 < (2 if i < 20 else 13) else [-2.0, -1.0, -9.0]
    cell = _cell("base", 0)
    write_cell(tmp_path, cell, derive(table(*rows), benchmark_of))
    study, _ = study_of([cell], tmp_path, "base", draws=200)
    name, value = worst_type(study, "base")
    assert (name, value.value) == ("gender", pytest.approx(10))


def test_cells_of_other_items_or_inputs_are_left_out_and_named(tmp_path: Path) -> None:
    cells = [_cell("base", 0), _cell("rtn", 0), _cell("gptq", 0), _cell("learned", 0)]
    write_cell(tmp_path, cells[0])
    write_cell(tmp_path, cells[1], made_up(cells[1], items=44))
    write_cell(tmp_path, cells[2], inputs={"base": "another"})
    study, left_out = study_of(cells, tmp_path, "base", draws=50)
    assert set(study.labels) == {"base"}
    other = "run on other inputs or items than the base"
    assert left_out == {"rtn-s0": other, "gptq-s0": other, "learned-s0": "not run"}


def _continuations(score: float) -> pa.Table:
    columns = {"n_chars": None, "status": "ok", "group": "gender"}
    subgroups = ("American_actors", "American_actresses")
    return derive(
        table(
            *(row("bold_sentiment", i, [], **columns, text="so it goes", score=score + i % 2, subgroup=subgroups[i % 2]) for i in range(8))
        ),
        benchmark_of,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything the command writes, from made-up results of the real declaration."""
    folder = tmp_path_factory.mktemp("tables")
    out = folder / "results"
    declared = read(HERE / "declaration.yaml")
    wanted = ("base", "fair_round", "learned", "gptq", "fair_gptq_exact", "pareto-l1", "pareto-l4")
    for cell in _cells(out, declared):
        if cell.label in wanted and cell.name != "fair_round-s4":
            training = {"stopped": "step 7: a gradient is not finite" if cell.name == "pareto-l4-s0" else None}
            write_cell(out, cell, evaluate_s=500.0 if cell.name == "gptq-s0" else 10.0, training=training)
        if cell.label in ("base_text", "fair_round_text"):
            said = {"sampled": {"The pilot was a": [1, 3, 0], "The nurse was a": [3, 1, 0]}}
            write_cell(out, cell, _continuations(0.5 if cell.label == "base_text" else 0.25), **(said if cell.label == "base_text" else {}))
    write_json(next(c for c in _cells(out, declared) if c.label == "autoround").folder(out) / "failure.json", {"reason": "no such package"})
    (folder / "results.md").write_text("# Results\n\nOf another script.\n")
    before = {"unit": "s", "machine": "m", "versions": {}, "date": "2026-11-22", "command": "c"}
    merge(
        folder / "records.json",
        [measurement(name="time_7b_s", value=1, **before), measurement(name="icat", recipe="fair_round", model=MODEL, value=0, **before)],
    )
    with pytest.MonkeyPatch.context() as patch:
        options = {"results": "results", "out": "results.md", "plot": "plot.png", "records": "records.json"}
        patch.setattr("sys.argv", ["table", *(part for name, file in options.items() for part in (f"--{name}", str(folder / file)))])
        assert main() == 0
    return folder


def _rows(text: str, title: str) -> dict[str, list[str]]:
    body = re.split(r"^###", text.split(f"### {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]
    lines = [re.split(r"(?<!\\)\|", line.strip("| ")) for line in body.splitlines() if line.startswith("|")]
    return {line[0].strip(): [part.strip() for part in line[1:]] for line in lines}


def test_the_section_has_every_method_and_leaves_the_rest_of_the_document(written: Path) -> None:
    text = (written / "results.md").read_text()
    assert text.startswith("# Results\n\nOf another script.\n\n<!-- fair-rounding -->\n## Learned fair rounding\n")
    assert diary().strip() in text
    methods = _rows(text, "Methods")
    assert list(methods) == ["method", "---", "base", "gptq", "fair_gptq_exact", "learned", "fair_round"]
    assert methods["fair_round"][0] == "4"
    assert len(methods["base"]) == len(methods["method"]) == 11
    assert methods["base"][methods["method"].index("perplexity ratio")] == "1.000 [1.000, 1.000]"
    assert [name for name in _rows(text, "Sweeps") if name.startswith("pareto")] == ["pareto-l1", "pareto-l4"]
    assert set(_rows(text, "Against full precision")) == {"method", "---", "fair_round", "learned", "gptq", "fair_gptq_exact"}
    assert set(_rows(text, "`fair_round` against the others")) == {"method", "---", "fair_gptq_exact", "gptq", "learned"}
    assert set(_rows(text, "Sweeps against `gptq`")) == {"method", "---", "pareto-l1", "pareto-l4"}
    assert "Beyond 480 s: gptq-s0 (520 s). pareto-l4-s0 stopped early (step 7: a gradient is not finite): " in text
    assert text.count("stopped early") == 1
    assert "same for every cell:\n  1,500 of boolq, 3,000 of hellaswag" in text
    assert f"on WikiText-2's validation text: put it at `{TEXT}`." in text
    assert (written / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_generated_text_has_its_own_table_without_what_has_no_value(written: Path) -> None:
    rows = _rows((written / "results.md").read_text().split("**Co-occurrence, sampled**")[0], "Generated text")
    values = {name: dict(zip(rows["model"], cells, strict=True)) for name, cells in rows.items()}
    # No judge ran: no share of useful answers
    assert set(values["base_text"]) == {"sentiment", "disparity", "mean_words", "nonempty"}
    assert values["base_text"]["sentiment"].startswith("1.000 [")
    assert values["fair_round_text"]["sentiment"].startswith("0.500 [")
    assert values["base_text"]["mean_words"].startswith("3.000 [")


def test_the_front_is_what_no_other_point_beats_in_both() -> None:
    def point(x: float, y: float) -> tuple[Value, Value]:
        return Value(x, x, x, x, 1.0, (x,)), Value(y, y, y, y, 1.0, (y,))

    points = {
        "far": point(1.0, 60),
        "beaten": point(1.2, 55),
        "near": point(1.1, 46.5),
        "as near": point(1.3, 53.5),
        "even": point(1.4, 50),
    }
    assert front(points, -1) == ["far", "near", "even"]
    assert front(points, 1) == ["even"]


def test_sampled_words_have_a_table(written: Path) -> None:
    text = (written / "results.md").read_text()
    assert "50 continuations of every `The <occupation> was a`" in text
    row = next(line for line in text.split("**Co-occurrence, sampled**")[1].splitlines() if line.startswith("| base_text"))
    assert row.startswith("| base_text | 0.500 [0.250, 0.750] | 0.250 [0.250, 0.250] | 1.000 [1.000, 1.000] |")


def test_cells_that_were_not_run_are_listed_with_their_reason(written: Path) -> None:
    missing = (written / "results.md").read_text().split("### Cells that were not run\n")[1]
    assert re.search(r"^- not run: .*\bfinal fair_round-s4\b", missing, re.M)
    assert "- no such package: final autoround-s0\n" in missing
    assert "search fair_round-p16-s0" in missing
    assert "final fair_round-s3" not in missing


def test_aims_are_those_of_the_records(written: Path) -> None:
    aims = _rows((written / "results.md").read_text(), "Targets")
    for record in (record for record in read_json(written / "records.json") if record["details"]):
        value, _, _, met = aims[f"`{record['name']}`"]
        assert value.startswith(f"{record['value']:.4g} [")
        assert met == ("yes" if record["details"]["met"] else "no")
    assert {line[-1] for line in aims.values()} >= {"yes", "no"}


def test_records_hold_the_row_of_the_candidate_and_keep_those_of_others(written: Path) -> None:
    rows = {row["name"]: row for row in read_json(written / "records.json")}
    names = {"icat", "ss", "lms", "worst_bias_type_ss", "crows_pct", "ppl_ratio", "zero_shot_ratio", "learned_ppl_ratio"}
    assert set(rows) == {*names, "time_7b_s"}
    for name in names:
        row = rows[name]
        assert row["low"] <= row["value"] <= row["high"], name
        assert row["seeds"] == len(row["runs"]) == (5 if name == "learned_ppl_ratio" else 4)
        low, high = row["target"]
        inside = (low is None or row["value"] >= low) and (high is None or row["value"] <= high)
        assert row["details"]["met"] == (inside and row["details"].get("lower_95", 1) >= 0.97)
    ratio = rows["zero_shot_ratio"]
    assert ratio["low"] <= ratio["details"]["lower_95"] <= ratio["value"]


def test_without_the_base_there_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["table", "--results", str(tmp_path), "--out", str(tmp_path / "results.md")])
    assert main() == 2
    assert "the base was not run" in capsys.readouterr().err
    assert not (tmp_path / "results.md").exists()


def test_the_committed_page_shows_the_diary_as_it_is() -> None:
    assert diary().strip() in (REPOSITORY / "docs/results.md").read_text(encoding="utf-8")
