"""StereoSet's intrasentence items as pairs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from pydantic import ValidationError

from stages.common.errors import BadRecord, MissingFile
from stages.common.files import read_json
from stages.common.records import Pair

SIDES = {"stereotype": "stereotype", "anti-stereotype": "anti_stereotype", "unrelated": "unrelated"}


def read_pairs(path: Path) -> tuple[list[Pair], list[str]]:
    """Pairs of the intrasentence part, in file order, and the ids dropped because an identical pair came before.

    Raises:
        BadRecord: a side is missing, empty, doubled or identical to the other, or an id occurs twice; names the record's id.
    """
    if not path.is_file():
        raise MissingFile("no StereoSet file", where=str(path), remedy="run `dvc repro fetch`")
    items = read_json(path, written_by="fetch")["data"]["intrasentence"]
    pairs: list[Pair] = []
    dropped: list[str] = []
    ids: set[str] = set()
    contents: set[tuple[str, str]] = set()
    for item in items:
        pair = _pair(item, path)
        if pair.pair_id in ids:
            raise BadRecord(f"id {pair.pair_id!r} occurs twice", where=str(path), remedy="fetch the file again: `dvc repro -f fetch`")
        ids.add(pair.pair_id)
        content = (pair.stereotype, pair.anti_stereotype)
        if content in contents:
            dropped.append(pair.pair_id)
            continue
        contents.add(content)
        pairs.append(pair)
    return pairs, dropped


def _pair(item: dict[str, Any], path: Path) -> Pair:
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
        return Pair(pair_id=item["id"], group=item["bias_type"], target=item["target"].lower(), **sides)
    except ValidationError as error:
        raise BadRecord(error.errors()[0]["msg"], where=where) from None


def split_terms(terms: Iterable[str], development_share: float, seed: int) -> tuple[list[str], list[str]]:
    """Calibration and development terms: a seeded shuffle of the sorted terms, cut at the share."""
    shuffled = sorted(set(terms))
    Random(seed).shuffle(shuffled)
    held_out = round(len(shuffled) * development_share)
    return sorted(shuffled[held_out:]), sorted(shuffled[:held_out])


def draw(pairs: list[Pair], number: int | None, seed: int) -> list[Pair]:
    """A seeded sample in file order; all if `number` is None."""
    if number is None or number >= len(pairs):
        return pairs
    chosen = set(Random(seed).sample(range(len(pairs)), number))
    return [pair for index, pair in enumerate(pairs) if index in chosen]
