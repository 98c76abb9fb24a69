"""Benchmark files in their published formats with made-up, harmless content.

A task file states how many records its benchmark has and refuses any other number. The files made
here hold exactly that many, so the smoke run uses the task files as they are.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fairgate.support.digests import sha256_file
from stages.fetch.manifest import Counter, File, Manifest, PathOrigin, SetEntry

_PEOPLE = ("gardener", "pilot", "engineer", "cook", "neighbor", "baker", "sailor", "teacher")
_PLACES = ("harbor", "kitchen", "garden", "station", "library", "market", "office", "workshop")
_TYPES = ("gender", "profession", "race", "religion")
_HABITS = {"stereotype": "waters the roses", "anti-stereotype": "reads the map", "unrelated": "seven of salt the"}


def _people(item: int, suffix: str) -> str:
    """The person whom an item is about. Each has eight items, so that a sample stays small."""
    return f"{_PEOPLE[item % len(_PEOPLE)]}{suffix}{item // 64}"


def _stereoset(part: str, records: int, suffix: str, context: str) -> list[dict[str, Any]]:
    """Items with three sentences each. `suffix` keeps the target terms of two files apart."""
    return [
        {
            "id": f"{part}-{number}",
            "target": _people(number, suffix),
            "bias_type": _TYPES[number % len(_TYPES)],
            "context": context.format(number=number),
            "sentences": [
                {"id": f"{part}-{number}-{label}", "gold_label": label, "labels": [], "sentence": sentence}
                for label, habit in _HABITS.items()
                for sentence in [f"The {_people(number, suffix)} in the {_PLACES[number % 7]} {habit} at {number}."]
            ],
        }
        for number in range(records)
    ]


def _stereoset_file(intrasentence: int, intersentence: int, suffix: str) -> str:
    data = {
        "intrasentence": _stereoset("intra", intrasentence, suffix, "The BLANK at {number}."),
        "intersentence": _stereoset("inter", intersentence, suffix, f"Morning {{number}} was dry {suffix}."),
    }
    return json.dumps({"version": "1.0", "data": data})


def _crows_pairs(records: int) -> str:
    rows = [
        {
            "": number,
            "sent_more": f"The {_PEOPLE[number % 8]} numbered {number} sells old bread.",
            "sent_less": f"The {_PEOPLE[(number + 3) % 8]} numbered {number} sells old bread.",
            "stereo_antistereo": ("stereo", "antistereo")[number % 3 == 0],
            "bias_type": ("age", "race-color", "gender", "religion")[number % 4],
            "annotations": "[]",
            "anon_writer": "a0",
            "anon_annotators": "[]",
        }
        for number in range(records)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _piqa(records: int) -> str:
    return _lines(
        {
            "question": f"how do you open window {number}?",
            "options": f"A. turn handle {number}.\nB. ask the {_PEOPLE[number % 8]}.",
            "answer": f"A. turn handle {number}." if number % 2 else f"B. ask the {_PEOPLE[number % 8]}.",
        }
        for number in range(records)
    )


def _openbookqa(records: int) -> str:
    options = ("bread", "the old map", "salt and roses", "a window")
    return _lines(
        {
            "question": f"A pilot with {number} maps reads ",
            "options": "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True)),
            "answer": f"{'ABCD'[number % 4]}. {options[number % 4]}",
        }
        for number in range(records)
    )


def _passage(number: int, place: str) -> str:
    return f"Passage {number} describes the {place}. Ships of line {number} reach the {place} before the morning."


def _boolq(records: int) -> str:
    return _lines(
        {"question": f"is morning {number} dry", "title": "t", "answer": str(number % 2 == 0), "passage": _passage(number, "dry coast")}
        for number in range(records)
    )


def _boolq_test(records: int) -> str:
    return _lines({"question": "is it", "idx": number, "passage": _passage(number, "wide bay")} for number in range(records))


def _boolq_combined(records: int) -> str:
    return _lines({"question": "is it", "passage": _passage(number, "far island")} for number in range(records))


_STEREOSET = Counter(format="json", at=("data.intrasentence", "data.intersentence"))
_JSONL = Counter(format="jsonl")
# Set -> file, how fetch counts it, how many records it holds, and the function that makes its text.
_SETS: dict[str, tuple[str, Counter, int, Callable[[], str]]] = {
    "stereoset_dev": ("dev.json", _STEREOSET, 96 + 32, lambda: _stereoset_file(96, 32, "a")),
    "stereoset_test": ("test.json", _STEREOSET, 6392, lambda: _stereoset_file(6392, 0, "b")),
    "crows_pairs": ("crows_pairs_anonymized.csv", Counter(format="csv"), 1508, lambda: _crows_pairs(1508)),
    "piqa": ("validation.jsonl", _JSONL, 1500, lambda: _piqa(1500)),
    "openbookqa": ("test.jsonl", _JSONL, 500, lambda: _openbookqa(500)),
    "boolq_dev": ("dev.jsonl", _JSONL, 3270, lambda: _boolq(3270)),
    "boolq_test": ("test.jsonl", _JSONL, 3245, lambda: _boolq_test(3245)),
    "boolq_combined": ("combined.jsonl", _JSONL, 64, lambda: _boolq_combined(64)),
}


def make_up_data(folder: Path) -> Manifest:
    """Write every file below `folder`; the manifest that is returned names them as origins."""
    sets = {}
    for name, (file, count, records, make) in _SETS.items():
        path = folder / name / file
        path.parent.mkdir(parents=True)
        path.write_text(make(), encoding="utf-8")
        pinned = File(sha256=sha256_file(path), records=records)
        origin = PathOrigin(kind="path", folder=str(path.parent), files={file: pinned})
        made = "made up by `fairgate smoke`"
        sets[name] = SetEntry(default=True, count=count, licence="none", attribution=made, source=made, origins=[origin])
    return Manifest(schema=1, wheels={}, models={}, sets=sets)
