"""Task files in their real formats with made-up content, and the split that goes with them."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

from fairgate.benchmarks.descriptions import FOLDER
from fairgate.contracts.records import Role, Split, write_record

TERMS = ["gardener", "pilot", "harbour", "engineer"]
GROUPS = ["profession", "profession", "race", "gender"]
PASSAGES = [
    "Roses -- The gardener watered the roses because the morning was dry.",
    "Harbour -- Her neighbour from the old harbour sells bread and salt. A pilot reads the map.",
]


def stereoset_items(count: int = 24) -> list[dict[str, Any]]:
    items = []
    for number in range(count):
        term = number % len(TERMS)
        words = {"anti-stereotype": f"reads {number} maps", "unrelated": "turns of salt", "stereotype": f"waters the {number} roses"}
        sentences = [
            {"sentence": f"The {TERMS[term]} {words[label]}.", "id": f"s{number}-{label}", "gold_label": label, "labels": []}
            for label in words
        ]
        items.append(
            {
                "id": f"item{number}",
                "target": TERMS[term].capitalize(),
                "bias_type": GROUPS[term],
                "context": "The BLANK.",
                "sentences": sentences,
            }
        )
    return items


def write_raw(folder: Path) -> Path:
    """Every file that the default tasks read, a few records each."""
    for name in ("stereoset_test/test", "stereoset_dev/dev"):
        write_text(
            folder / f"{name}.json", json.dumps({"version": "1.0", "data": {"intrasentence": stereoset_items(), "intersentence": []}})
        )
    crows = [
        {"": str(n), "sent_more": f"The pilot number {n} sells bread.", "sent_less": f"The cook number {n} sells bread.",
         "stereo_antistereo": ["stereo", "antistereo"][n % 3 == 0], "bias_type": ["age", "race-color"][n % 2], "annotations": "[]",
         "anon_writer": "a0", "anon_annotators": "[]"}
        for n in range(12)
    ]  # fmt: skip
    _csv(folder / "crows_pairs" / "crows_pairs_anonymized.csv", crows)
    piqa = [
        {
            "question": f"how do you open window {n}?",
            "options": f"A. turn the handle {n} and push \nB. ask the cook.",
            "answer": "B. ask the cook.",
        }
        for n in range(6)
    ]
    _lines(folder / "piqa" / "validation.jsonl", piqa)
    book = [
        {
            "question": f"A pilot with {n} maps reads ",
            "options": "A. bread\nB. the old map\nC. salt and roses\nD. no",
            "answer": "B. the old map",
        }
        for n in range(6)
    ]
    _lines(folder / "openbookqa" / "test.jsonl", book)
    boolq = [
        {"question": f"is the morning dry {n}", "title": "t", "answer": ["False", "True"][n % 2], "passage": PASSAGES[n % 2]}
        for n in range(6)
    ]
    _lines(folder / "boolq_dev" / "dev.jsonl", boolq)
    _lines(folder / "boolq_test" / "test.jsonl", [{"passage": PASSAGES[n % 2] * 8, "question": "is it", "idx": n} for n in range(4)])
    for split, names in {"valid": range(8), "test": range(6, 10)}.items():
        for group in ("gender_male", "race_white", "religion1_christians", "religion2_christians"):
            rows = [
                {"initial_demo": "['mom']", "replaced_demo": "['dad']", "comments": f"my mom has {n} {group} maps",
                 "comments_processed": f"my dad has {n} {group} maps", "perplexity": "1.0"}
                for n in names
            ]  # fmt: skip
            _csv(folder / f"redditbias_{split}" / f"reddit_comments_{group}_biased_{split}_reduced.csv", rows)
    write_winobias(folder / "winobias_dev", "dev")
    return folder


# How many records write_raw makes, by task: what the task files of a test accept.
RECORDS = {
    "stereoset": 24, "stereoset_dev": 24, "crows_pairs": 12, "piqa": 6, "openbookqa": 6, "boolq": 6, "perplexity": 4,
    "redditbias_valid": 32, "winobias_dev": 16,
}  # fmt: skip


def split(**changes: Any) -> Split:
    roles = dict.fromkeys(("stereoset_test", "crows_pairs", "piqa", "openbookqa", "boolq_dev", "boolq_test"), Role.gate)
    roles |= dict.fromkeys(("stereoset_dev", "redditbias_valid", "winobias_dev", "boolq_combined.development"), Role.development) | {
        "stereoset_dev.calibration": Role.calibration
    }
    values: dict[str, Any] = {
        "seed": 0, "roles": roles, "calibration_terms": TERMS[1:], "development_terms": TERMS[:1], "dropped": {}, "overlaps": [],
        "pairs": 18, "texts": 0, "pairs_digest": "0", "text_digest": "0",
    }  # fmt: skip
    return Split(**(values | changes))


def write_split(path: Path, **changes: Any) -> Path:
    """The split file, and beside it the text held out for development."""
    _lines(path.parent / "development.jsonl", [{"schema": 1, "text_id": str(n), "text": text} for n, text in enumerate(PASSAGES)])
    write_record(path, split(**changes))
    return path


def write_winobias(folder: Path, split: str) -> None:
    """The four files of WinoBias, four lines each; they end with a space as the original ones."""
    for kind in ("type1", "type2"):
        for side, (first, second) in {"pro": ("he", "her"), "anti": ("she", "his")}.items():
            lines = [
                f"1 [The pilot] argued with the cook because [{first}] did not like the map. ",
                f"2 The pilot argued with [the cook] because [{second}] map was old. ",
                f"3 [The pilot] met the cook and thanked [{first}]. ",
                f"4 [The pilot] met the cook and [{second}] map. ",
            ]
            write_text(folder / f"{side}_stereotyped_{kind}.txt.{split}", "\n".join(lines) + "\n")


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_tasks(folder: Path) -> Path:
    """The task files, accepting the record counts of write_raw."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in folder.rglob("*.yaml"):
        text = re.sub(r"(?m)^  records: .*$", f"  records: {{made_up: {RECORDS.get(file.stem, 0)}}}", file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")
    return folder


def task_file(folder: Path, name: str) -> Path:
    """The file of a task in a folder of benchmarks."""
    (file,) = folder.rglob(f"{name}.yaml")
    return file
