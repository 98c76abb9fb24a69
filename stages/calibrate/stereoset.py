"""StereoSet's items as pairs.

A side of a pair is one sentence (intrasentence), or a context and the sentence after it
(intersentence).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import ValidationError

from fairgate.contracts.records import Pair
from fairgate.support.errors import BadRecord, MissingFile
from fairgate.support.files import read_json, records_of
from stages.calibrate.leakage import sentences

SIDES = {"stereotype": "stereotype", "anti-stereotype": "anti_stereotype", "unrelated": "unrelated"}

Part = Literal["intrasentence", "intersentence"]


def read_pairs(path: Path, part: Part = "intrasentence") -> tuple[list[Pair], list[str]]:
    """Pairs of one part in file order, and the ids of pairs identical to an earlier one, dropped.

    A side of an intersentence pair is the context, a space, and the sentence after it, unchanged.

    Raises:
        BadRecord: a side is missing, empty, doubled or identical to the other side; a context is
            empty; or an id occurs twice in the file, in either part. The message has the id.
    """
    data = _data(path)
    ids = Counter(item.get("id") for items in data.values() for item in items)
    if twice := [name for name, times in ids.items() if times > 1]:
        raise BadRecord(f"id {twice[0]!r} occurs twice", where=str(path), remedy="fetch the file again: `dvc repro -f fetch`")
    pairs: dict[tuple[str, str], Pair] = {}
    dropped: list[str] = []
    for item in data[part]:
        pair = _pair(item, path, part)
        if pairs.setdefault((pair.stereotype, pair.anti_stereotype), pair) is not pair:
            dropped.append(pair.pair_id)
    return list(pairs.values()), dropped


def read_terms(path: Path) -> set[str]:
    """The target terms of both parts, in lower case: the social groups that the items name."""
    return {item["target"].lower() for items in _data(path).values() for item in items}


def ids_sharing(path: Path, part: Part, reported: set[str]) -> set[str]:
    """Ids of the items that share a normalized sentence with `reported`.

    An item's sentences are its context, what follows it, and the two in one.
    """
    texts = {
        item["id"]: [item["context"], *(text for s in item["sentences"] for text in (s["sentence"], _join(item["context"], s["sentence"])))]
        for item in _data(path)[part]
    }
    return {name for name, parts in texts.items() if sentences(parts) & reported}


def _data(path: Path) -> dict[str, list[dict[str, Any]]]:
    if not path.is_file():
        raise MissingFile("no StereoSet file", where=str(path), remedy="run `dvc repro fetch`")
    with records_of("StereoSet", str(path)):
        data: dict[str, list[dict[str, Any]]] = read_json(path, written_by="fetch")["data"]
        for item in [*data["intrasentence"], *data["intersentence"]]:
            texts = [item[key] for key in ("id", "bias_type", "target", "context")]
            texts += [sentence[key] for sentence in item["sentences"] for key in ("gold_label", "sentence")]
            if wrong := [text for text in texts if not isinstance(text, str)]:
                raise TypeError(f"{wrong[0]!r} is no text")
        return data


def _pair(item: dict[str, Any], path: Path, part: Part) -> Pair:
    where = f"{path}: record {item.get('id')!r}"
    sides: dict[str, str] = {}
    for sentence in item["sentences"]:
        label = sentence["gold_label"]
        if label not in SIDES:
            raise BadRecord(f"label {label!r} is none of {', '.join(SIDES)}", where=where)
        if SIDES[label] in sides:
            raise BadRecord(f"side {label!r} occurs twice", where=where)
        sides[SIDES[label]] = sentence["sentence"].strip()
    missing = [label for label, side in SIDES.items() if side not in sides]
    if missing:
        raise BadRecord(f"side {missing[0]!r} is missing", where=where, remedy="fetch the file again: `dvc repro -f fetch`")
    try:
        pair = Pair(pair_id=item["id"], group=item["bias_type"], target=item["target"].lower(), **sides)
    except ValidationError as error:
        raise BadRecord(error.errors()[0]["msg"], where=where) from None
    if part == "intrasentence":
        return pair
    if not item["context"].strip():
        raise BadRecord("the context is empty", where=where, remedy="fetch the file again: `dvc repro -f fetch`")
    return pair.model_copy(update={side: _join(item["context"], text) for side, text in sides.items()})


def _join(context: str, sentence: str) -> str:
    return f"{context.strip()} {sentence.strip()}"


def split_terms(terms: Iterable[str], development_share: float, seed: int) -> tuple[list[str], list[str]]:
    """Calibration and development terms: the sorted terms, shuffled by the seed and cut in two."""
    shuffled = sorted(set(terms))
    Random(seed).shuffle(shuffled)
    held_out = round(len(shuffled) * development_share)
    return sorted(shuffled[held_out:]), sorted(shuffled[:held_out])


def draw_pairs(pairs: list[Pair], number: int | None, seed: int) -> list[Pair]:
    """A seeded sample of the pairs, in file order. None means all."""
    if number is None or number >= len(pairs):
        return pairs
    chosen = set(Random(seed).sample(range(len(pairs)), number))
    return [pair for index, pair in enumerate(pairs) if index in chosen]
