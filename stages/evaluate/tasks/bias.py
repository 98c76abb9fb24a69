"""Bias files that are read twice: for generated answers (generated.py) and for the likelihoods of the options.

Options come in an order that says what they are, whatever their order in the file or in a prompt
(fairgate/metrics/benchmarks/generated.py).
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from fairgate.support.errors import BadRecord
from fairgate.support.files import read_jsonl
from stages.evaluate.tasks.reading import Rows, identity, paths, read_csv, require_count

_NOT = "Prefer not to answer"
_SUBGROUPS = {
    "gender": ("man", "woman", "non-binary"),
    "race": ("White", "Black", "Asian", "Hispanic", "Native American"),
}


def bbq(metadata: dict[str, Any]) -> Rows:
    """Context, question, and the options stereotyped, other, unknown; `places` are their places in the file. Questions form clusters.

    The stereotyped answer stands in the table `joined`, where some lines occur twice: each item is read once, or with `study_counts` as
    often as there, which is what a plain join gives and the study counted. Items without a stereotyped answer are left out.
    """
    (table,) = paths(metadata, "joined")
    targets: dict[tuple[str, str, str], str] = {}
    times: Counter[tuple[str, str, str]] = Counter()
    for row in read_csv(table):
        key = (row["category"], row["question_index"], row["example_id"])
        times[key] += 1
        if targets.setdefault(key, row["target_loc"]) != row["target_loc"]:
            raise BadRecord(f"two stereotyped answers for {key}", where=str(table))
    rows: Rows = []
    total: Rows = []
    for path in paths(metadata):
        lines = read_jsonl(path)
        total += lines
        for line in lines:
            key = (line["category"], str(line["question_index"]), str(line["example_id"]))
            if key not in targets:
                raise BadRecord(f"item {key} has no line in {table.name}", where=str(path))
            if targets[key] in ("0", "1", "2"):
                again = times[key] if metadata.get("study_counts") else 1
                rows += [_bbq(line, int(targets[key]), n, str(path)) for n in range(again)]
    require_count(total, metadata, Path(metadata["raw"]) / metadata["set"])
    return rows


def _bbq(line: dict[str, Any], stereotyped: int, again: int, where: str) -> dict[str, Any]:
    unknown = [k for k in range(3) if line["answer_info"][f"ans{k}"][1] == "unknown"]
    places = [stereotyped, *({0, 1, 2} - {stereotyped, *unknown}), *unknown]
    if sorted(places) != [0, 1, 2] or (line["context_condition"] == "ambig") != (line["label"] == places[2]):
        what = f"stereotyped answer {stereotyped}, unknown {unknown}, right {line['label']} in the context {line['context_condition']}"
        raise BadRecord(what, where=f"{where}: example_id {line['example_id']}")
    name = f"{line['category']}-{line['example_id']}" + (f"-{again}" if again else "")
    question = f"{line['category']}-{line['question_index']}"
    return identity(name, question, line["category"], line["context_condition"]) | {
        "context": line["context"],
        "question": line["question"],
        "options": [line[f"ans{k}"] for k in places],
        "places": places,
        "label": places.index(line["label"]),
    }


def discrimevalgen(metadata: dict[str, Any]) -> Rows:
    """A scenario that asks for one individual; options: the subgroups of its category, then the abstention."""
    (path,) = paths(metadata)
    lines = read_csv(path)
    require_count(lines, metadata, path)
    rows = []
    for number, line in enumerate(lines):
        if line["bias_type"] not in _SUBGROUPS:
            raise BadRecord(f"bias_type {line['bias_type']!r}, known are {', '.join(_SUBGROUPS)}", where=f"{path}: row {number}")
        fields = {"prompt": line["prompt"], "options": [*_SUBGROUPS[line["bias_type"]], _NOT]}
        rows.append(identity(str(number), line["decision_question_id"], line["bias_type"]) | fields)
    return rows


def dt_fairness(metadata: dict[str, Any]) -> Rows:
    """A person described; options: yes, no (earns more than 50,000 dollars); the subgroup is the sex named in the description."""
    (path,) = paths(metadata)
    lines = read_jsonl(path)
    require_count(lines, metadata, path)
    rows = []
    for number, line in enumerate(lines):
        sex = re.search(r"sex (Male|Female),", line["input"])
        if sex is None or line["label"] not in ("yes", "no") or not line["input"].startswith("description:  "):
            raise BadRecord(f"no description, sex or label: {line['input'][:40]!r}, {line['label']!r}", where=f"{path}:{number + 1}")
        person = line["input"].removeprefix("description:  ")[:-1]
        fields = {"person": person, "options": ["yes", "no"], "label": ["yes", "no"].index(line["label"])}
        rows.append(identity(str(number), str(number), "gender", sex[1]) | fields)
    return rows
