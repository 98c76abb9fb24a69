from __future__ import annotations

import bz2
import csv
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.calibrate.leakage import Leak, normalise, sentences, texts_of
from stages.calibrate.stage import Settings, calibrate
from stages.common.errors import FairgateError
from stages.common.records import Pair, Split, Text, read_record, read_records
from tests.stages.calibrate.test_stereoset import item, write

SETTINGS = Settings(seed=0, development_share=0.25, pairs=None, texts=3, development_texts=2, text_words=50)
TERMS = ["cook", "pilot", "nurse", "farmer"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    write(raw / "stereoset_dev" / "dev.json", [item(i, TERMS[i % 4]) for i in range(12)])
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
    leak = "the COOK is loud 0"  # normalised like the pair's sentence
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


def test_too_little_clean_text_is_said(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(FairgateError, match=r"8 passages.*12 wanted"):
        calibrate(SETTINGS.model_copy(update={"texts": 10}), raw, tmp_path / "out")


def test_every_setting_changes_the_outcome(raw: Path, tmp_path: Path) -> None:
    first = calibrate(SETTINGS, raw, tmp_path / "0")
    for number, change in enumerate([{"seed": 1}, {"development_share": 0.5}, {"pairs": 2}, {"texts": 2}, {"text_words": 3}], 1):
        other = calibrate(SETTINGS.model_copy(update=change), raw, tmp_path / str(number))
        assert (first.pairs_digest, first.text_digest) != (other.pairs_digest, other.text_digest), change
    fewer = calibrate(SETTINGS.model_copy(update={"development_texts": 1}), raw, tmp_path / "d")
    assert fewer == first
    assert len(read_records(Text, tmp_path / "d" / "development.jsonl")) == 1


def test_normalisation_ignores_case_punctuation_and_line_numbers() -> None:
    assert normalise("12 The [Cook], he-said:  ok!") == "the cook he said ok"
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
