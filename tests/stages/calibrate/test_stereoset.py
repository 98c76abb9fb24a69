from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairgate.support.errors import BadRecord, MissingFile
from stages.calibrate.stereoset import Part, draw_pairs, ids_sharing, read_pairs, read_terms, split_terms


def item(number: int, target: str = "cook", **sides: str) -> dict[str, Any]:
    texts = {"stereotype": f"The cook is loud {number}.", "anti-stereotype": f"The cook is calm {number}.", "unrelated": f"A map {number}."}
    texts |= {side.replace("_", "-"): text for side, text in sides.items()}
    return {
        "id": f"id{number}",
        "target": target,
        "bias_type": "profession",
        "context": "",
        "sentences": [{"id": "s", "sentence": text, "gold_label": side} for side, text in texts.items()],
    }


def in_context(number: int, target: str = "cook", context: str | None = None, **sides: str) -> dict[str, Any]:
    """An intersentence item, its id apart from `item`'s of the same number."""
    made = item(number, target, **sides)
    return {**made, "id": f"inter{number}", "context": f"We met number {number} today." if context is None else context}


def write(path: Path, items: list[dict[str, Any]], following: list[dict[str, Any]] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"data": {"intrasentence": items, "intersentence": following or []}}))
    return path


def test_pairs_keep_id_group_target_and_sides(tmp_path: Path) -> None:
    pairs, dropped = read_pairs(write(tmp_path / "dev.json", [item(1, "Cook")]))
    assert dropped == []
    assert pairs[0].model_dump(exclude={"schema_"}) == {
        "pair_id": "id1",
        "group": "profession",
        "target": "cook",
        "stereotype": "The cook is loud 1.",
        "anti_stereotype": "The cook is calm 1.",
        "unrelated": "A map 1.",
    }


def test_identical_pairs_are_kept_once_and_listed(tmp_path: Path) -> None:
    twin = {**item(1), "id": "twin"}
    pairs, dropped = read_pairs(write(tmp_path / "dev.json", [item(1), twin, item(2)]))
    assert [pair.pair_id for pair in pairs] == ["id1", "id2"]
    assert dropped == ["twin"]


def test_a_side_in_context_is_context_space_sentence_as_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path / "dev.json", [item(1)], [in_context(1, context="No stop here ", stereotype=" the Cook is loud"), in_context(2)])
    (pair, second), dropped = read_pairs(path, "intersentence")
    assert dropped == []
    assert (pair.pair_id, pair.target) == ("inter1", "cook")
    assert pair.stereotype == "No stop here the Cook is loud"
    assert pair.anti_stereotype == "No stop here The cook is calm 1."
    assert pair.unrelated == "No stop here A map 1."
    assert second.stereotype == "We met number 2 today. The cook is loud 2."


def test_the_same_sentences_after_another_context_are_another_pair(tmp_path: Path) -> None:
    same = {"stereotype": "Loud.", "anti_stereotype": "Calm."}
    items = [in_context(1, **same), in_context(2, **same), {**in_context(1, **same), "id": "twin"}]
    pairs, dropped = read_pairs(write(tmp_path / "dev.json", [], items), "intersentence")
    assert [pair.pair_id for pair in pairs] == ["inter1", "inter2"]
    assert dropped == ["twin"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (in_context(7, stereotype="  "), r"inter7[\s\S]*empty"),
        (in_context(7, stereotype="Same.", anti_stereotype="Same."), r"inter7[\s\S]*identical"),
        (in_context(7, context=" "), r"inter7[\s\S]*context is empty"),
        ({**in_context(7), "sentences": in_context(7)["sentences"][:2]}, r"inter7[\s\S]*'unrelated' is missing"),
    ],
)
def test_broken_records_in_context_raise_with_their_id(tmp_path: Path, broken: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        read_pairs(write(tmp_path / "dev.json", [item(1)], [in_context(1), broken]), "intersentence")


@pytest.mark.parametrize("part", ["intrasentence", "intersentence"])
def test_an_id_of_one_part_may_not_occur_in_the_other(tmp_path: Path, part: Part) -> None:
    path = write(tmp_path / "dev.json", [item(1)], [{**in_context(2), "id": "id1"}])
    with pytest.raises(BadRecord, match="'id1' occurs twice"):
        read_pairs(path, part)


def test_terms_are_those_of_both_parts(tmp_path: Path) -> None:
    assert read_terms(write(tmp_path / "dev.json", [item(1, "Cook")], [in_context(1, "Judge")])) == {"cook", "judge"}


@pytest.mark.parametrize(
    "changed",
    [
        {"context": "Seven grey ships sail"},  # without a full stop, or the two in one would show it
        {"context": "No stop", "unrelated": "Ha! Seven grey ships sail."},
        {"context": "No stop", "stereotype": "Seven grey ships sail."},
        {"context": "Seven grey", "anti_stereotype": "ships sail."},  # only the two in one
    ],
)
def test_sharing_looks_at_context_sentence_and_both_in_one(tmp_path: Path, changed: dict[str, str]) -> None:
    path = write(tmp_path / "dev.json", [], [in_context(1), in_context(2, **changed)])
    assert ids_sharing(path, "intersentence", {"seven grey ships sail"}) == {"inter2"}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({**item(7), "sentences": item(7)["sentences"][:2]}, r"id7[\s\S]*'unrelated' is missing"),
        (item(7, stereotype="  "), r"id7[\s\S]*empty"),
        (item(7, stereotype="Same.", anti_stereotype="Same."), r"id7[\s\S]*identical"),
        ({**item(7), "sentences": [*item(7)["sentences"], item(7)["sentences"][0]]}, r"id7[\s\S]*twice"),
        ({**item(7), "sentences": [{"sentence": "x", "gold_label": "sterotype"}]}, r"id7[\s\S]*sterotype"),
        (item(1), "'id1' occurs twice"),
    ],
)
def test_broken_records_raise_with_their_id(tmp_path: Path, broken: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        read_pairs(write(tmp_path / "dev.json", [item(1), broken]))


def test_missing_file_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="dvc repro fetch"):
        read_pairs(tmp_path / "dev.json")


def test_a_file_cut_short_names_itself_and_the_stage(tmp_path: Path) -> None:
    whole = write(tmp_path / "dev.json", [item(1)]).read_text()
    (tmp_path / "dev.json").write_text(whole[:100])
    with pytest.raises(BadRecord, match=r"dev.json: not valid JSON[\s\S]*dvc repro fetch"):
        read_pairs(tmp_path / "dev.json")


def test_split_is_by_term_seeded_and_complete() -> None:
    terms = [f"t{i}" for i in range(20)]
    first, second = split_terms(terms, 0.2, 0)
    assert len(second) == 4
    assert sorted(first + second) == sorted(terms)
    assert split_terms(reversed(terms), 0.2, 0) == (first, second)
    assert split_terms(terms, 0.2, 1) != (first, second)


def test_draw_is_a_seeded_sample_in_file_order(tmp_path: Path) -> None:
    pairs, _ = read_pairs(write(tmp_path / "dev.json", [item(i) for i in range(20)]))
    chosen = draw_pairs(pairs, 5, 0)
    assert len(chosen) == 5
    assert chosen == [pair for pair in pairs if pair in chosen]
    assert chosen != draw_pairs(pairs, 5, 1)
    assert draw_pairs(pairs, None, 0) == pairs


def test_original_file_has_the_documented_counts(shared: Path, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "dev.json"
    path.write_bytes(gzip.decompress((shared / "stereoset" / "dev.json.gz").read_bytes()))
    pairs, dropped = read_pairs(path)
    assert len(pairs) + len(dropped) == 2106
    assert len(dropped) == 5
    assert len({pair.target for pair in pairs}) == 79
    context_pairs, dropped = read_pairs(path, "intersentence")
    assert (len(context_pairs), dropped) == (2123, [])
    assert {pair.target for pair in context_pairs} == {pair.target for pair in pairs}
