"""What is wrong with a task's data or with a model is named, with the item and the remedy, before
or instead of a number.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from fairgate.contracts.item_table import read_items
from fairgate.contracts.records import Role
from fairgate.support.errors import BadRecord, FairgateError, MissingFile
from fairgate.support.files import read_json
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.task import Item
from stages.evaluate.tokens import Encoder
from tests.stages.evaluate.evaluation import evaluate
from tests.stages.evaluate.raw import write_raw
from tests.tiny import make_tiny_llama, make_tokenizer


def item(name: str, *prompts: tuple[str, str]) -> Item:
    return Item(name, name, None, None, None, prompts, tuple(len(o) for _, o in prompts))


@pytest.mark.parametrize(
    ("task", "file", "column"),
    [
        ("crows_pairs", "crows_pairs/crows_pairs_anonymized.csv", "bias_type"),
        ("piqa", "piqa/validation.jsonl", "options"),
        ("stereoset", "stereoset_test/test.json", "bias_type"),
    ],
)
def test_a_missing_column_is_named_with_its_file(work: Path, tmp_path: Path, task: str, file: str, column: str) -> None:
    path = write_raw(tmp_path / "raw") / file
    path.write_text(path.read_text().replace(column, "other"))
    with pytest.raises(BadRecord, match=rf"task {task}: {path}: column '{column}' is missing\nRemedy: .*dvc repro fetch"):
        Catalogue(tmp_path / "raw", work / "split.json", work / "tasks").load(task)


def test_a_record_that_lacks_a_key_names_the_file(work: Path, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "raw") / "piqa/validation.jsonl"
    path.write_text(path.read_text().replace('"answer"', '"reply"', 1))
    with pytest.raises(BadRecord, match=rf"{path}: column 'answer' is missing"):
        Catalogue(tmp_path / "raw", work / "split.json", work / "tasks").load("piqa")


CROWS, PIQA, STEREOSET = "crows_pairs/crows_pairs_anonymized.csv", "piqa/validation.jsonl", "stereoset_test/test.json"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            CROWS,
            lambda d: d[:-3] + "é".encode("cp1252") + d[-3:],
            r":\d+: not UTF-8 \(byte 0xe9\)\nRemedy: save the file as UTF-8",
        ),
        (CROWS, lambda d: d.decode().encode("utf-16"), r":1: not UTF-8 \(byte 0xff\)"),
        (CROWS, lambda d: d.rstrip(b"\r\n").rsplit(b",", 2)[0] + b"\n", r":\d+: other columns than the \d of the header"),
        (CROWS, lambda d: d.rstrip(b"\r\n") + b",more,and more\n", r":\d+: other columns than the \d of the header"),
        (CROWS, lambda d: d.rstrip(b"\r\n") + b'"' + b"x" * 200_000 + b"\n", r":\d+: not a CSV file \(field larger"),
        (PIQA, lambda d: d.replace(b"}", b"", 1), r":1: not valid JSON"),
        (PIQA, lambda d: d.replace(d.splitlines()[1], b"[1]"), r": task piqa has a record of another form \(TypeError"),
        (STEREOSET, lambda d: d[:-9], r": not valid JSON"),
        (STEREOSET, lambda d: b"[1, 2]", r": task stereoset has a record of another form \(TypeError"),
    ],
    ids=["cp1252", "utf-16", "short row", "long row", "long field", "cut line", "a list", "cut file", "a list of numbers"],
)
def test_a_damaged_file_is_named_with_its_line(work: Path, tmp_path: Path, file: str, change: Any, message: str) -> None:
    path = write_raw(tmp_path / "raw") / file
    path.write_bytes(change(path.read_bytes()))
    task = {CROWS: "crows_pairs", PIQA: "piqa", STEREOSET: "stereoset"}[file]
    with pytest.raises(BadRecord, match=rf"{path}{message}"):
        Catalogue(tmp_path / "raw", work / "split.json", work / "tasks").load(task)


def test_a_byte_order_mark_is_no_part_of_a_column(work: Path, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "raw") / CROWS
    wanted = Catalogue(tmp_path / "raw", work / "split.json", work / "tasks").load("crows_pairs")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Catalogue(tmp_path / "raw", work / "split.json", work / "tasks").load("crows_pairs") == wanted


def test_a_task_nobody_asked_for_is_skipped_where_its_data_are_absent(
    work: Path, settings: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = write_raw(tmp_path / "raw")
    (raw / "piqa/validation.jsonl").unlink()
    shutil.copytree(work / "tasks", tmp_path / "tasks")
    for path in (tmp_path / "tasks").rglob("*.yaml"):
        if path.stem not in ("crows_pairs", "piqa"):
            path.unlink()
    catalogue = Catalogue(raw, work / "split.json", tmp_path / "tasks")
    evaluate("base", work / "llama", tmp_path / "out", settings(), catalogue, role=Role.gate)
    assert "piqa: skipped, no data for piqa (validation.jsonl)" in caplog.text
    assert read_json(tmp_path / "out/environment.json")["skipped"] == {"piqa": "no data for piqa (validation.jsonl)"}
    assert set(read_items(tmp_path / "out/items.parquet")["benchmark"].to_pylist()) == {"crows_pairs"}
    for asked in ({"tasks": ["piqa"]}, {}):
        with pytest.raises(MissingFile, match="no data for piqa"):
            evaluate("base", work / "llama", tmp_path / "never", settings(tasks={"piqa": None}), catalogue, role=Role.gate, **asked)


def test_items_beyond_the_context_are_left_out_and_counted(
    work: Path, settings: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder(make_tokenizer(), 40)
    long = item("long one", ("The pilot reads a map. " * 20, " yes"), ("The pilot reads a map. " * 20, " no"))
    items = [item(str(n), ("The pilot", " yes"), ("The pilot", " no")) for n in range(99)]
    kept = encoder.encode([long, *items], "made_up")
    assert [e.item.id for e in kept] == [str(n) for n in range(99)]
    assert "task made_up: 1 of 100 items exceed the context of 40 tokens; first: item 'long one'; left out" in caplog.text
    with pytest.raises(FairgateError, match=r"2 of 101 items exceed .*\nRemedy: .* no prompt is cut, and at most 1% may be left out"):
        encoder.encode([long, long, *items], "made_up")


def test_what_was_left_out_is_in_the_record(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("stages.evaluate.tokens.MAX_TOO_LONG", 1.0)
    folder = make_tiny_llama(tmp_path / "short", context=48)
    evaluate("base", folder, tmp_path / "out", settings(), catalogue, role=Role.gate, tasks=["boolq", "openbookqa"])
    record = read_json(tmp_path / "out/environment.json")
    left_out = record["tasks"]["boolq"]["beyond_context"]
    assert 0 < left_out == record["prompts_beyond_context"] == 6 - record["tasks"]["boolq"]["items"]
    assert "beyond_context" not in record["tasks"]["openbookqa"]


def test_a_tokenizer_without_bos_starts_with_eos_and_one_without_either_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.bos_token = None
    (kept,) = Encoder(tokenizer, 64).encode([item("x", ("", "The pilot reads."))], "made_up")
    assert kept.requests[0].context == (tokenizer.eos_token_id,)
    tokenizer.eos_token = None
    with pytest.raises(FairgateError, match=r"tokenizer: .*neither BOS nor EOS\nRemedy"):
        Encoder(tokenizer, 64)


def test_an_empty_option_is_named() -> None:
    with pytest.raises(FairgateError, match=r"task made_up: option 1 of item 'x' has no token\nRemedy: correct the task's data"):
        Encoder(make_tokenizer(), 64).encode([item("x", ("The pilot", " yes"), ("The pilot", ""))], "made_up")


def test_sixteen_bits_on_a_cpu_are_held_against_float32(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    for dtype in ("bfloat16", "float32"):
        evaluate("base", work / "llama", tmp_path / dtype, settings(dtype=dtype), catalogue, role=Role.gate, tasks=["piqa", "stereoset"])
    record = read_json(tmp_path / "bfloat16/environment.json")
    assert record["dtype"] == "bfloat16"
    assert record["rounding"]["items"] == 6 + 8
    assert 0 < record["rounding"]["mean"] <= record["rounding"]["max"] < 0.2
    assert read_json(tmp_path / "float32/environment.json")["rounding"] is None


def test_auto_chooses_batch_and_dtype(work: Path, catalogue: Catalogue, settings: Any, tmp_path: Path) -> None:
    evaluate(
        "base", work / "llama", tmp_path / "out", settings(dtype="auto", batch_tokens="auto"), catalogue, role=Role.gate, tasks=["piqa"]
    )
    record = read_json(tmp_path / "out/environment.json")
    assert record["batch_tokens"] == 2048
    assert record["dtype"] in ("bfloat16", "float32")
