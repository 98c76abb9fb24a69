"""Calibration folders as controls: what is kept, what is broken, the same for the same seed, and
the original untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.fair_rounding.calibration_variants import bootstrap, of_text, shuffled, unrelated
from fairgate.contracts.records import Pair, Text, read_records
from fairgate.support.digests import sha256_folder
from fairgate.support.errors import FairgateError, MissingFile
from tests.experiments.fair_rounding.experiment import write_calibration

PAIRS, CONTEXT = "pairs.jsonl", "context_pairs.jsonl"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_calibration(tmp_path / "calibration")


def _pairs(folder: Path, name: str = PAIRS) -> list[Pair]:
    return read_records(Pair, folder / name)


@pytest.mark.parametrize("change", [bootstrap, shuffled, unrelated])
def test_a_seed_gives_one_folder_and_another_seed_another(folder: Path, tmp_path: Path, change: Callable[[Path, Path, int], None]) -> None:
    before = sha256_folder(folder)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        change(folder, tmp_path / name, seed)
    assert sha256_folder(tmp_path / "a") == sha256_folder(tmp_path / "b") != sha256_folder(tmp_path / "c")
    assert sha256_folder(folder) == before
    assert {path.name for path in (tmp_path / "a").iterdir()} == {path.name for path in folder.iterdir()}


def test_bootstrap_draws_whole_terms_within_their_type_and_the_same_ones_for_both_kinds_of_pairs(folder: Path, tmp_path: Path) -> None:
    drawn = set()
    for seed in range(8):
        out = tmp_path / str(seed)
        bootstrap(folder, out, seed)
        pairs, context = _pairs(out), _pairs(out, CONTEXT)
        assert [p.target for p in pairs] == [p.target for p in context]
        assert len({p.pair_id for p in pairs}) == len(pairs) == 12
        counts = {term: sum(p.target == term for p in pairs) for term in {p.target for p in pairs}}
        assert all(count % 3 == 0 for count in counts.values())
        assert counts["harbour"] == counts["engineer"] == 3  # one term each: drawn for sure
        assert sum(p.group == "profession" for p in pairs) == 6
        drawn.add(tuple(sorted(counts.items())))
    assert len(drawn) == 3  # either profession twice, or both


def test_shuffled_pairs_keep_their_sentences_and_about_half_change_sides(folder: Path, tmp_path: Path) -> None:
    shuffled(folder, tmp_path / "out", 1)
    swapped = 0
    for before, after in zip(_pairs(folder), _pairs(tmp_path / "out"), strict=True):
        assert {before.stereotype, before.anti_stereotype} == {after.stereotype, after.anti_stereotype}
        assert (before.pair_id, before.unrelated) == (after.pair_id, after.unrelated)
        swapped += before.stereotype == after.anti_stereotype
    assert 0 < swapped < 12


def test_unrelated_pairs_are_of_general_text_and_alike_in_length(folder: Path, tmp_path: Path) -> None:
    unrelated(folder, tmp_path / "out", 0)
    text = " ".join(text.text for text in read_records(Text, folder / "text.jsonl"))
    before, after = _pairs(folder), _pairs(tmp_path / "out")
    assert [(p.pair_id, p.group, p.target) for p in before] == [(p.pair_id, p.group, p.target) for p in after]
    for pair in after:
        assert pair.stereotype in text
        assert pair.anti_stereotype in text
        assert pair.stereotype != pair.anti_stereotype
        assert pair.unrelated not in text


def test_unrelated_pairs_need_sentences(folder: Path, tmp_path: Path) -> None:
    (folder / "training.jsonl").unlink()
    (folder / "text.jsonl").write_text('{"schema": 1, "text_id": "0", "text": "Too short."}\n')
    with pytest.raises(FairgateError, match="0 sentences of 5 to 30 words"):
        unrelated(folder, tmp_path / "out", 0)


def test_another_text_replaces_the_general_text_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "wiki.txt"
    file.write_text(" = A heading = \n" + "".join(f" {'word ' * 60}<unk> {'word ' * 60}number {n} .\n" for n in range(5)))
    of_text(folder, tmp_path / "out", file, 0)
    for name in ("text.jsonl", "training.jsonl"):
        texts = read_records(Text, tmp_path / "out" / name)
        longest = max(len(text.text.split()) for text in read_records(Text, folder / name))
        assert len(texts) == 2
        assert all(set(text.text.split()) <= {"word", "number", "0", "1", "2", "3", "4", "."} for text in texts)
        assert {len(text.text.split()) for text in texts} == {min(longest, 123)}
    assert _pairs(tmp_path / "out") == _pairs(folder)
    with pytest.raises(FairgateError, match="no line of 32 words"):
        of_text(folder, tmp_path / "short", folder / "split.json", 0)
    with pytest.raises(MissingFile, match="give one with --text"):
        of_text(folder, tmp_path / "other", tmp_path / "absent", 0)
