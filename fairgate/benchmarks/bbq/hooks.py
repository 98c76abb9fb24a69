"""Dataset hooks of BBQ: options stereotyped, other, unknown, whatever their order in the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from datasets import Dataset
from lm_eval.tasks.bbq import utils as published

from fairgate.benchmarks.families.reading import (
    Rows,
    as_test,
    identity,
    paths,
    read_csv,
    require_count,
)
from fairgate.benchmarks.families.results import answered
from fairgate.support.errors import BadRecord
from fairgate.support.files import read_jsonl

__all__ = ["answered", "any_unknown", "lmeval", "questions", "with_letters"]


def questions(**metadata: Any) -> dict[str, Dataset]:
    """The questions of `read`: options stereotyped, other, unknown."""
    return as_test(read(metadata), metadata)


def with_letters(**metadata: Any) -> dict[str, Dataset]:
    """The questions of `read`, answers in the order of the file."""
    rows = []
    for row in read(metadata):
        shown = [row["options"][row["places"].index(place)] for place in range(3)]
        rows.append(row | {"shown": shown, "answers": [ascii_uppercase[place] for place in row["places"]]})
    return as_test(rows, metadata)


def read(metadata: dict[str, Any]) -> Rows:
    """Context, question, and the options stereotyped, other, unknown.

    `places` are the places of the options in the file. The items of a question form a cluster.

    The stereotyped answer stands in the table `joined`, where some lines occur twice. Each item is
    read once. With `study_counts` it is read as often as the table has it, as the study did. Items
    without a stereotyped answer are left out.
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
                rows += [_row(line, int(targets[key]), n, str(path)) for n in range(again)]
    require_count(total, metadata, Path(metadata["raw"]) / metadata["set"])
    return rows


def _row(line: dict[str, Any], stereotyped: int, again: int, where: str) -> dict[str, Any]:
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


class _Docs(list[dict[str, Any]]):
    """Rows with the one method of a dataset that the published hook calls.

    A dataset itself would rewrite 58,000 of them on disk.
    """

    def map(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
        return [change(row) for row in self]


def lmeval(**metadata: Any) -> dict[str, Dataset]:
    """BBQ by the hooks of lm-eval's own task `bbq`.

    The options are two named answers and ten spellings of "unknown".

    `covariate` says which of the two is biased by its rule: 1 is the
    first, 2 the second, 3 both, 0 neither.
    """
    rows: Rows = []
    for path in paths(metadata):
        for doc in published.process_docs(_Docs(read_jsonl(path))):
            name, question = (f"{doc['category']}-{doc[key]}" for key in ("example_id", "question_index"))
            fields = {"context": doc["context"], "question": doc["question"], "options": published.doc_to_choice(doc)}
            biased = sum(2**k for k in published.doc_to_biased_answer(doc))
            marks = {"label": published.doc_to_target(doc), "covariate": float(biased)}
            rows.append(identity(name, question, doc["category"], doc["context_condition"]) | fields | marks)
    require_count(rows, metadata, Path(metadata["raw"]) / metadata["set"])
    return as_test(rows, metadata)


def any_unknown(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """For the plain `lm_eval` command: every spelling of "unknown" is right where one is."""
    answer = max(range(len(results)), key=lambda k: results[k][0])
    return {"acc": float(answer == doc["label"] or min(answer, doc["label"]) >= 2)}
