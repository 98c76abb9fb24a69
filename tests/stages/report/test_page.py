from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from fairgate.contracts import records
from fairgate.support.digests import sha256_folder, sha256_json
from fairgate.support.errors import BadRecord, FairgateError
from fairgate.support.files import read_json, write_json
from stages.report.data import gather
from stages.report.page import timing_script
from stages.report.stage import report as write_report
from stages.report.words import figure_text
from tests.fake_run import CROWS_GROUPS, KINDS, RECIPES, STEREOSET_GROUPS, make_run


class Elements(HTMLParser):
    """Start tags with their attributes, the open-tag balance, and the text."""

    VOID = frozenset(("meta", "link", "br", "img", "input", "hr"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page_of(folder: Path) -> str:
    return (folder / "data" / "reports" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("verdict", "word"), [("approve", "Approved"), ("reject", "Rejected"), ("inconclusive", "Inconclusive")])
def test_verdict_stands_first_with_its_reasons(tmp_path: Path, verdict: str, word: str) -> None:
    folder = make_run(tmp_path, verdict)
    write_report(folder, folder / "params.yaml")
    page = page_of(folder)
    elements = Elements(page)
    assert re.search(r"<h1>(.*?)</h1>", page).group(1) == word  # type: ignore[union-attr]
    assert next(tag for tag, _ in elements.tags if tag in ("h1", "h2")) == "h1"
    record = records.read_record(records.VerdictRecord, folder / "data/reports/fair_gptq/verdict.json")
    assert all(reason in elements.text for reason in record.reasons)
    assert {w for w in ("Approved", "Rejected", "Inconclusive") if w in elements.text} == {word}


def test_every_check_recipe_group_and_module_is_shown(run: Path) -> None:
    elements = Elements(page_of(run))
    record = records.read_record(records.VerdictRecord, run / "data/reports/fair_gptq/verdict.json")
    for check in record.checks:
        assert check.name in elements.text and check.reason in elements.text
    for name in (*RECIPES, *STEREOSET_GROUPS, *CROWS_GROUPS, "damped", "fallback_rtn", "1,500 of 1,838"):
        assert name in elements.text
    assert all(f"model.layers.{block}.self_attn.{kind}" in elements.text for block in range(6) for kind in KINDS[:4])
    assert elements.stack == []


def test_what_a_line_could_detect_has_a_column(tmp_path: Path) -> None:
    folder = make_run(tmp_path, items=8)
    path = folder / "data/reports/fair_gptq/verdict.json"
    verdict = read_json(path)
    verdict["checks"][0]["detectable"] = 2.345
    write_json(path, verdict)
    write_report(folder, folder / "params.yaml")
    first = page_of(folder).split("bias.stereoset")[1].split("</tr>")[0]
    assert first.endswith('<td class="r">2.345</td>')


def test_base_weights_have_the_digest_that_evaluations_name(run: Path) -> None:
    row = page_of(run).split("Base weights</dt>")[1].split("</dd>")[0]
    assert sha256_json("base weights")[:12] in row


def test_how_learning_went_is_shown_and_how_it_ended(run: Path, learned_run: Path) -> None:
    page = page_of(learned_run)
    text = Elements(page).text
    assert "Stopped early, step 57: divergence is not finite. The weights are the last good state's, after 50 of 60 steps." in text
    assert text.count("stopped early") == 1 and text.count("as asked") == 1
    assert "1.000 → 0.082 – – –" in text  # learned has one term of the loss
    assert "1.000 → 0.082 0.368 → 0.030 0.135 → 0.011 0.050 → 0.004" in text
    assert '<th scope="col" class="r">spread</th>' in page
    assert '<th scope="col" class="r">features</th>' not in page  # a term that no recipe here has
    curves = re.findall(r'<polyline points="([^"]+)"', page)
    assert [len(points.split()) for points in curves] == [6, 6, 6, 6]
    assert "How learning went" not in page_of(run)


def test_every_figure_has_a_name_and_every_section_a_heading(run: Path) -> None:
    elements = Elements(page_of(run))
    figures = [attributes for tag, attributes in elements.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(figures) > 10 and all(figure.get("aria-label") for figure in figures)
    ids = {attributes.get("id") for _, attributes in elements.tags}
    sections = [attributes for tag, attributes in elements.tags if tag == "section"]
    assert all(section["aria-labelledby"] in ids for section in sections)
    links = [attributes["href"] for tag, attributes in elements.tags if tag == "a"]
    assert all(link and link.startswith("#") and link[1:] in ids for link in links)


def test_page_asks_no_other_machine(run: Path) -> None:
    page = page_of(run)
    loads = [value for tag, a in Elements(page).tags for key, value in a.items() if key in ("src", "href", "srcset", "action", "poster")]
    assert {load for load in loads if load and not load.startswith("#")} == {"timing.js", "data:,"}
    assert not re.search(r"https?:|@import|url\(", page)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)<|script>"
    folder = make_run(tmp_path)
    split = folder / "data" / "calibration" / "split.json"
    record = records.read_record(records.Split, split).model_copy(update={"dropped": {"<img src=x>": ["<i>"], hostile: ["<b>&'\""]}})
    records.write_record(split, record)
    write_report(folder, folder / "params.yaml")
    elements = Elements(page_of(folder))
    assert [a.get("src") for tag, a in elements.tags if tag == "script"] == ["timing.js"]
    assert not any(tag in ("img", "b", "i") for tag, _ in elements.tags)
    assert hostile in elements.text and "<img src=x>" in elements.text


def test_same_inputs_give_the_same_bytes(run: Path, tmp_path: Path) -> None:
    again = make_run(tmp_path / "elsewhere")
    write_report(again, again / "params.yaml")
    write_report(again, again / "params.yaml")
    reports = [sha256_folder(folder / "data" / "reports") for folder in (run, again)]
    assert reports[0] == reports[1]


def test_page_does_not_depend_on_timing(run: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder / "data" / "timing" / "gate.json").unlink()
    write_report(folder, folder / "params.yaml")
    assert page_of(folder) == page_of(run)
    assert "3.2" in (run / "data/reports/timing.js").read_text() and "3.2" not in (folder / "data/reports/timing.js").read_text()


def test_timing_script_cannot_be_left(tmp_path: Path) -> None:
    script = timing_script([{"name": '"]); alert(1); //', "seconds": 1.0}])
    assert '"\\"]); alert(1); //"' in script


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.0, "0.000"), (-0.0001, "−1.00e−04"), (12.5, "12.50"), (2e6, "2.00e+06")])
def test_numbers_of_unknown_size(value: float | None, text: str) -> None:
    assert figure_text(value) == text


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("data/evaluation/gptq/items.parquet", "evaluate"),
        ("data/evaluation/fair_gptq/metrics.json", "evaluate"),
        ("data/evaluation/base/environment.json", "evaluate"),
        ("data/models/rtn/quantization.json", "quantize"),
        ("data/calibration/split.json", "calibrate"),
        ("data/raw/SOURCES.json", "fetch"),
        ("data/base/SOURCE.json", "fetch"),
        ("data/reports/fair_gptq/verdict.json", "gate"),
    ],
)
def test_missing_input_names_the_stage_to_run(tmp_path: Path, path: str, stage: str) -> None:
    folder = make_run(tmp_path, items=8)
    (folder / path).unlink()
    with pytest.raises(FairgateError) as caught:
        write_report(folder, folder / "params.yaml")
    assert path in caught.value.where and f"dvc repro {stage}" in caught.value.remedy
    assert not (folder / "data/reports/index.html").exists()


def test_a_recipe_that_left_the_matrix_is_not_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path, items=8)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["matrix"].remove("rtn")
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "data/evaluation/rtn/items.parquet").write_bytes(b"of another run")
    assert gather(folder, folder / "params.yaml").names == ("base", "gptq", "fair_gptq")


def test_command_writes_everything_or_exits_with_2(tmp_path: Path) -> None:
    folder = make_run(tmp_path, items=8)

    def report() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stages.report"]
        paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        return subprocess.run(command, cwd=folder, env=paths, capture_output=True, text=True, timeout=60)

    assert report().returncode == 0
    assert {path.name for path in (folder / "data/reports").iterdir()} == {"index.html", "timing.js", "plots", "metrics", "fair_gptq"}
    (folder / "data/evaluation/fair_gptq/items.parquet").unlink()
    failed = report()
    assert failed.returncode == 2 and "no item table" in failed.stderr and "dvc repro evaluate" in failed.stderr


def test_stale_metrics_are_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path, items=8)
    path = folder / "data/evaluation/gptq/metrics.json"
    write_json(path, {**read_json(path), "piqa.acc": 0.123})
    with pytest.raises(BadRecord, match=r"piqa\.acc is 0\.123"):
        write_report(folder, folder / "params.yaml")


def test_recipe_that_was_not_evaluated_is_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path, items=8)
    shutil.rmtree(folder / "data/evaluation/rtn")
    write_report(folder, folder / "params.yaml")
    page = page_of(folder)
    assert "</svg>rtn" not in page and "</svg>gptq" in page
