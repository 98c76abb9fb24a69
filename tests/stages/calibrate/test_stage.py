from __future__ import annotations

import bz2
import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairgate.contracts.records import Pair, Split, Text, read_record, read_records
from fairgate.support.digests import sha256_file
from fairgate.support.errors import FairgateError
from stages.calibrate.leakage import Leak, normalize_sentence, sentences, texts_of
from stages.calibrate.stage import Settings, calibrate
from tests.stages.calibrate.test_stereoset import in_context, item, write

SETTINGS = Settings(seed=0, development_share=0.25, pairs=None, texts=3, development_texts=2, training_texts=5, text_words=50)
TERMS = ["cook", "pilot", "nurse", "farmer"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    items, following = [item(i, TERMS[i % 4]) for i in range(12)], [in_context(i, TERMS[i % 4]) for i in range(12)]
    write(raw / "stereoset_dev" / "dev.json", items, following)
    write(raw / "stereoset_test" / "test.json", [item(100, "judge", stereotype="Every judge likes old books here.")])
    (raw / "crows_pairs").mkdir()
    with (raw / "crows_pairs" / "crows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["", "sent_more"], ["0", "The nurse, they said, never slept a single night."]])
    (raw / "boolq_combined").mkdir()
    passages = [f"Passage number {i} speaks of rivers. Rivers run to the sea, as number {i} says." for i in range(8)]
    passages += ["A leak follows. The nurse they said never slept a single night!", passages[0].upper()]
    (raw / "boolq_combined" / "combined.jsonl").write_text("".join(json.dumps({"passage": text}) + "\n" for text in passages))
    return raw


def test_outputs_are_disjoint_and_recorded(raw: Path, tmp_path: Path) -> None:
    split = calibrate(SETTINGS, raw, tmp_path / "out")
    pairs = read_records(Pair, tmp_path / "out" / "pairs.jsonl")
    texts = read_records(Text, tmp_path / "out" / "text.jsonl")
    held_out = read_records(Text, tmp_path / "out" / "development.jsonl")
    assert {pair.target for pair in pairs} == set(split.calibration_terms)
    assert not set(split.calibration_terms) & set(split.development_terms)
    assert len(texts) == 3
    assert len(held_out) == 2
    assert not {text.text for text in texts} & {text.text for text in held_out}
    assert read_record(Split, tmp_path / "out" / "split.json") == split
    assert split.dropped["boolq_combined: shares a sentence with a gate set"] == ["boolq-9"]
    assert not any("leak" in text.text for text in texts + held_out)


def test_terms_that_merely_occur_are_counted_not_refused(raw: Path, tmp_path: Path) -> None:
    split = calibrate(SETTINGS, raw, tmp_path / "out")
    found = {(o.second, o.kind): o.count for o in split.overlaps if o.first == "pairs"}
    assert found["crows_pairs", "term"] == ("nurse" in split.calibration_terms)
    assert found["crows_pairs", "sentence"] == 0


def test_a_shared_sentence_stops_the_stage_and_leaves_nothing(raw: Path, tmp_path: Path) -> None:
    leak = "the COOK is loud 0"  # normalized like the pair's sentence
    with (raw / "crows_pairs" / "crows.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["1", leak])
    (raw / "stereoset_dev" / "dev.json").write_text((raw / "stereoset_dev" / "dev.json").read_text().replace("loud 0.", "loud 0!"))
    with pytest.raises(Leak, match=r"crows_pairs[\s\S]*cook is loud"):
        calibrate(SETTINGS.model_copy(update={"development_share": 0.01}), raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shared_target_term_stops_the_stage(raw: Path, tmp_path: Path) -> None:
    write(raw / "stereoset_test" / "test.json", [item(100, "cook", stereotype="x y z w", anti_stereotype="y z w x")])
    with pytest.raises(Leak, match="target term 'cook'"):
        calibrate(SETTINGS, raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("boolq_combined/combined.jsonl", lambda d: d.replace(b"}", b"", 1), ":1: not valid JSON"),
        ("boolq_combined/combined.jsonl", lambda d: b"\xe9" + d, r":1: not UTF-8 \(byte 0xe9\)"),
        ("boolq_combined/combined.jsonl", lambda d: d.replace(b"passage", b"text", 1), ":1: no text under the key 'passage'"),
        ("boolq_combined/combined.jsonl", lambda d: b"7\n" + d, ":1: no text under the key 'passage'"),
        ("stereoset_dev/dev.json", lambda d: d[:-5], ": not valid JSON"),
        ("stereoset_dev/dev.json", lambda d: b"[]", ": StereoSet has a record of another form"),
        ("stereoset_dev/dev.json", lambda d: d.replace(b'"target": "cook"', b'"target": 7', 1), ": StereoSet has a record of another form"),
        ("stereoset_dev/dev.json", lambda d: d.replace(b'"gold_label"', b'"gold_lab"', 1), r": StereoSet has .*KeyError: 'gold_label'"),
        ("stereoset_dev/dev.json", lambda d: d.replace(b'"bias_type"', b'"bias"', 1), r": StereoSet has .*KeyError: 'bias_type'"),
        ("stereoset_dev/dev.json", lambda d: d.replace(b'"id": "', b'"id": ["', 1).replace(b'", ', b'"], ', 1), ".*is no text"),
        ("stereoset_dev/dev.json", lambda d: d.replace(b'"intersentence"', b'"inter"'), r": StereoSet has .*KeyError: 'intersentence'"),
        ("crows_pairs/crows.csv", lambda d: d + "\u00e9".encode("cp1252"), r":\d+: not UTF-8 \(byte 0xe9\)"),
        ("crows_pairs/crows.csv", lambda d: d + b'"' + b"x" * 200_000, r": the table cannot be read \(Error: field larger"),
        ("crows_pairs/more.jsonl", lambda d: b'{"a": "b"}\n{"a": ', ":2: not valid JSON"),
        ("crows_pairs/more.parquet", lambda d: b"no parquet", ": the parquet file cannot be read"),
    ],
)
def test_a_damaged_file_is_named(raw: Path, tmp_path: Path, file: str, change: Any, message: str) -> None:
    path = raw / file
    path.write_bytes(change(path.read_bytes() if path.exists() else b""))
    with pytest.raises(FairgateError, match=rf"{path}{message}"):
        calibrate(SETTINGS, raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_little_clean_text_is_said(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(FairgateError, match=r"8 passages for `texts`, 10 wanted[\s\S]*fewer `calibrate.texts`"):
        calibrate(SETTINGS.model_copy(update={"texts": 10}), raw, tmp_path / "out")


@pytest.mark.parametrize(("name", "wanted", "found"), [("development_texts", 6, 5), ("training_texts", 7, 6)])
def test_too_little_text_for_one_use_names_its_parameter(raw: Path, tmp_path: Path, name: str, wanted: int, found: int) -> None:
    message = rf"{found} passages for `{name}`, {wanted} wanted[\s\S]*fewer `calibrate.{name}`"
    with pytest.raises(FairgateError, match=message):
        calibrate(SETTINGS.model_copy(update={name: wanted}), raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_training_text_begins_with_the_calibration_text_and_changes_no_other_file(raw: Path, tmp_path: Path) -> None:
    split = calibrate(SETTINGS, raw, tmp_path / "a")
    texts, training = (read_records(Text, tmp_path / "a" / f"{name}.jsonl") for name in ("text", "training"))
    assert training[:3] == texts
    assert len({text.text_id for text in training}) == split.training_texts == 5
    assert split.training_digest == sha256_file(tmp_path / "a" / "training.jsonl")
    fewer = calibrate(SETTINGS.model_copy(update={"training_texts": 4}), raw, tmp_path / "b")
    assert read_records(Text, tmp_path / "b" / "training.jsonl") == training[:4]
    assert fewer.training_digest != split.training_digest
    for name in ("pairs", "context_pairs", "text", "development"):
        assert (tmp_path / "a" / f"{name}.jsonl").read_bytes() == (tmp_path / "b" / f"{name}.jsonl").read_bytes(), name


def test_training_text_shares_no_sentence_with_development_or_gate(raw: Path, tmp_path: Path) -> None:
    """Each passage has a twin that shares its first sentence.

    One more passage shares a sentence with a gate set only where the cut ends it.
    """
    path = raw / "boolq_combined" / "combined.jsonl"
    twins = [f"Passage number {i} speaks of rivers. A twin of {i} adds a word." for i in range(8)]
    twins.append("The nurse they said never slept a single night " + "and so on " * 50)
    path.write_text(path.read_text() + "".join(json.dumps({"passage": text}) + "\n" for text in twins))
    settings = SETTINGS.model_copy(update={"development_texts": 1, "training_texts": 9, "text_words": 9})
    split = calibrate(settings, raw, tmp_path / "out")
    training, held_out = (read_records(Text, tmp_path / "out" / f"{name}.jsonl") for name in ("training", "development"))
    assert sentences(text.text for text in training).isdisjoint(sentences(text.text for text in held_out))
    assert split.dropped["boolq_combined: shares a sentence with a gate set"] == ["boolq-9", "boolq-19"]
    # Of 16 clean passages one is held out, and its twin is left out.
    with pytest.raises(FairgateError, match=r"14 passages for `training_texts`"):
        calibrate(settings.model_copy(update={"training_texts": 16}), raw, tmp_path / "more")


def test_passages_too_short_for_a_sentence_are_still_held_out(raw: Path, tmp_path: Path) -> None:
    calibrate(SETTINGS.model_copy(update={"text_words": 3, "training_texts": 6}), raw, tmp_path / "out")
    training, held_out = (read_records(Text, tmp_path / "out" / f"{name}.jsonl") for name in ("training", "development"))
    assert len(held_out) == 2
    assert not {text.text_id for text in training} & {text.text_id for text in held_out}


def test_pairs_in_context_are_of_calibration_terms_and_counted(raw: Path, tmp_path: Path) -> None:
    split = calibrate(SETTINGS, raw, tmp_path / "out")
    pairs = read_records(Pair, tmp_path / "out" / "context_pairs.jsonl")
    assert {pair.target for pair in pairs} == set(split.calibration_terms)
    assert len(pairs) == split.context_pairs == 9
    assert split.context_pairs_digest == sha256_file(tmp_path / "out" / "context_pairs.jsonl")
    assert not {pair.pair_id for pair in pairs} & {pair.pair_id for pair in read_records(Pair, tmp_path / "out" / "pairs.jsonl")}
    found = {(o.first, o.second, o.kind): (o.count, o.refused) for o in split.overlaps}
    assert found["context pairs", "crows_pairs", "sentence"] == found["training", "stereoset_test", "sentence"] == (0, True)


def test_pairs_in_context_that_share_a_sentence_with_a_gate_set_are_left_out_and_listed(raw: Path, tmp_path: Path) -> None:
    terms = calibrate(SETTINGS, raw, tmp_path / "before").calibration_terms
    test = json.loads((raw / "stereoset_test" / "test.json").read_text())["data"]["intrasentence"]
    shared = [in_context(100 + i, "judge", context=f"we MET number {i} today!") for i in range(4)]
    write(raw / "stereoset_test" / "test.json", test, [{**one, "id": f"test{number}"} for number, one in enumerate(shared)])
    split = calibrate(SETTINGS, raw, tmp_path / "out")
    # One of the four items is of a development term: it was never a candidate.
    dropped = [f"inter{i}" for i in range(4) if TERMS[i] in terms]
    assert len(dropped) == 3
    assert split.dropped["stereoset_dev with context: shares a sentence with a gate set"] == dropped
    kept = {pair.pair_id for pair in read_records(Pair, tmp_path / "out" / "context_pairs.jsonl")}
    assert kept == {f"inter{i}" for i in range(4, 12) if TERMS[i % 4] in terms}


def test_a_term_that_only_has_context_is_no_calibration_term_and_moves_no_other(raw: Path, tmp_path: Path) -> None:
    before = calibrate(SETTINGS, raw, tmp_path / "before")
    items, following = [item(i, TERMS[i % 4]) for i in range(12)], [in_context(i, (*TERMS, "baker")[i % 5]) for i in range(15)]
    write(raw / "stereoset_dev" / "dev.json", items, following)
    after = calibrate(SETTINGS, raw, tmp_path / "after")
    assert (after.calibration_terms, after.development_terms) == (before.calibration_terms, before.development_terms)
    assert {pair.target for pair in read_records(Pair, tmp_path / "after" / "context_pairs.jsonl")} == set(after.calibration_terms)


@pytest.mark.parametrize("part", ["intrasentence", "intersentence"])
def test_a_target_term_of_either_part_of_test_stops_the_stage(raw: Path, tmp_path: Path, part: str) -> None:
    ours = {"intrasentence": [item(100, "judge")], "intersentence": [in_context(100, "judge")], part: [in_context(100, "Cook")]}
    write(raw / "stereoset_test" / "test.json", ours["intrasentence"], ours["intersentence"])
    with pytest.raises(Leak, match="target term 'cook'"):
        calibrate(SETTINGS, raw, tmp_path / "out")


def test_a_split_of_before_still_reads(raw: Path, tmp_path: Path) -> None:
    calibrate(SETTINGS, raw, tmp_path / "out")
    path = tmp_path / "out" / "split.json"
    old = json.loads(path.read_text())
    for field in ("context_pairs", "context_pairs_digest", "training_texts", "training_digest"):
        del old[field]
    path.write_text(json.dumps(old))
    split = read_record(Split, path)
    assert (split.context_pairs, split.training_digest) == (0, None)


def test_every_setting_changes_the_outcome(raw: Path, tmp_path: Path) -> None:
    first = calibrate(SETTINGS, raw, tmp_path / "0")
    for number, change in enumerate([{"seed": 1}, {"development_share": 0.5}, {"pairs": 2}, {"texts": 2}, {"text_words": 3}], 1):
        other = calibrate(SETTINGS.model_copy(update=change), raw, tmp_path / str(number))
        assert (first.pairs_digest, first.text_digest) != (other.pairs_digest, other.text_digest), change
    fewer = calibrate(SETTINGS.model_copy(update={"development_texts": 1}), raw, tmp_path / "d")
    assert (fewer.pairs_digest, fewer.text_digest) == (first.pairs_digest, first.text_digest)
    assert len(read_records(Text, tmp_path / "d" / "development.jsonl")) == 1


def test_normalisation_ignores_case_punctuation_and_line_numbers() -> None:
    assert normalize_sentence("12 The [Cook], he-said:  ok!") == "the cook he said ok"
    assert sentences(["One two three four. Yes! Five six seven eight\nnine ten eleven twelve"]) == {
        "one two three four",
        "five six seven eight",
        "nine ten eleven twelve",
    }


def test_texts_of_reads_every_format(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"x": ["one"], "y": {"z": "two"}, "n": 3}))
    (tmp_path / "b.jsonl").write_text('{"p": "three"}\n')
    (tmp_path / "c.tsv").write_text("four\tfive\n")
    (tmp_path / "d.txt.dev").write_text("six\n")
    (tmp_path / "e.txt.bz2").write_bytes(bz2.compress(b"seven\n"))
    with tarfile.open(tmp_path / "f.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("part/g.csv")
        member.size = 6
        archive.addfile(member, io.BytesIO(b"eight\n"))
    pq.write_table(pa.table({"n": [1], "choices": [{"text": ["nine", "ten"]}]}), tmp_path / "h.parquet")
    expected = {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"}
    assert set(texts_of(tmp_path)) == expected
