"""Dataset hooks of MMLU."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    Rows,
    as_test,
    given,
    identity,
    index_of,
    read_rows,
    require_count,
)
from fairgate.benchmarks.families.results import answered
from fairgate.support.archives import read_texts
from fairgate.support.errors import BadRecord

__all__ = ["answered", "questions", "with_letters"]

_LETTERS = "ABCD"


def questions(**metadata: Any) -> dict[str, Dataset]:
    """Question, four options and label, behind `shots` worked questions of the subject.

    Worked questions keep the order of the dev file.
    """
    rows = []
    for number, (line, worked) in enumerate(read(metadata)):
        shots = "".join(_asked(example) + f" {_LETTERS[example['label']]}\n\n" for example in worked)
        row = identity(f"{line['subject']}-{number}", f"{line['subject']}-{number}", line["subject"])
        rows.append(row | {"prompt": shots + _asked(line), "label": line["label"]})
    return as_test(rows, metadata)


def with_letters(**metadata: Any) -> dict[str, Dataset]:
    """The questions of `read` by subject, each with its worked ones."""
    rows: Rows = []
    for number, (line, worked) in enumerate(read(metadata)):
        name = f"{line['subject']}-{number}"
        fields = {"question": line["question"], "shown": line["options"], "answers": list("ABCD"), "label": line["label"]}
        shots = [{"question": example["question"], "options": example["options"], "answer": "ABCD"[example["label"]]} for example in worked]
        rows.append(identity(name, name, line["subject"]) | fields | {"worked": shots})
    return as_test(rows, metadata)


def read(metadata: dict[str, Any]) -> list[tuple[dict[str, Any], Rows]]:
    """Each test question with the first `shots` dev questions of its subject.

    A question has subject, question, options and label.
    """
    files, hub = given(metadata)
    dev, test = [_hub_rows(path) for path in files] if hub else _archive(files[0])
    require_count(test, metadata, files[-1])
    worked: dict[str, Rows] = {}
    for line in dev:
        worked.setdefault(line["subject"], []).append(line)
    shots = metadata.get("shots", 0)
    for subject in dict.fromkeys(line["subject"] for line in test):
        if (count := len(worked.get(subject, []))) < shots:
            raise BadRecord(f"{count} worked questions of {subject}, {shots} wanted", where=str(files[0]))
    return [(line, worked.get(line["subject"], [])[:shots]) for line in test]


def _asked(line: dict[str, Any]) -> str:
    options = "".join(f"\n{letter}. {option}" for letter, option in zip(_LETTERS, line["options"], strict=True))
    return f"{line['question'].strip()}{options}\nAnswer:"


def _archive(path: Path) -> tuple[Rows, Rows]:
    """Rows of dev and test, by subject, from the archive.

    It holds `<part>/<subject>_<part>.csv` without headers.
    """
    parts: dict[str, Rows] = {"dev": [], "test": []}
    for name, text in sorted(read_texts(path)):
        part = name.split("/")[-2] if "/" in name else ""
        if part in parts and name.endswith(".csv"):
            subject = Path(name).name.removesuffix(f"_{part}.csv")
            lines = csv.reader(io.StringIO(text, newline=""))
            for line in lines:
                where = f"{path}: {name}:{lines.line_num}"
                if len(line) != 6:
                    raise BadRecord(f"{len(line)} columns instead of 6", where=where, remedy="use the original file")
                label = index_of(line[5], list(_LETTERS), where)
                parts[part].append({"subject": subject, "question": line[0], "options": line[1:5], "label": label})
    return parts["dev"], parts["test"]


def _hub_rows(path: Path) -> Rows:
    keys = {"subject": "subject", "question": "question", "choices": "options", "answer": "label"}
    return [{ours: line[theirs] for theirs, ours in keys.items()} for line in read_rows(path)]
