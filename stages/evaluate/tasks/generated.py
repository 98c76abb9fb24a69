"""Dataset hooks of the tasks with generated text (`output_type: generate_until`), and what the plain `lm_eval` command makes of an answer.

Rows have the columns of `reading.identity` and what the prompt of the task file names. Where an answer is to be read out of the text:

    answers  what may stand in the box, in the order of the options (fairgate/metrics/benchmarks/generated.py)
    shown    the options as the prompt lists them
    label    index of the right option, where there is one
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from string import ascii_uppercase
from typing import Any

from datasets import Dataset

from fairgate.support.errors import BadRecord
from fairgate.support.files import read_json, read_jsonl
from stages.evaluate.tasks import bias, capability, loaders
from stages.evaluate.tasks.reading import Rows, as_test, identity, paths, require_count


def winobias(**metadata: Any) -> dict[str, Dataset]:
    """The lines of `loaders.winobias`, both occupations in an order of their own for each line."""
    rows = loaders.winobias(**metadata)["test"].to_list()
    return as_test([_lettered(row, metadata["set"]) | {"pronoun": row["pronoun"].lower()} for row in rows], metadata)


def bbq(**metadata: Any) -> dict[str, Dataset]:
    """The questions of `bias.bbq`, answers in the order of the file."""
    rows = []
    for row in bias.bbq(metadata):
        shown = [row["options"][row["places"].index(place)] for place in range(3)]
        rows.append(row | {"shown": shown, "answers": [ascii_uppercase[place] for place in row["places"]]})
    return as_test(rows, metadata)


def discrimevalgen(**metadata: Any) -> dict[str, Dataset]:
    """The scenarios of `bias.discrimevalgen`, subgroups in an order of their own for each, the abstention last."""
    return as_test([_lettered(row, metadata["set"], last=1) for row in bias.discrimevalgen(metadata)], metadata)


def dt_fairness(**metadata: Any) -> dict[str, Dataset]:
    """The persons of `bias.dt_fairness`."""
    return as_test([row | {"answers": row["options"]} for row in bias.dt_fairness(metadata)], metadata)


def mmlu(**metadata: Any) -> dict[str, Dataset]:
    """The questions of `capability.mmlu_questions` by subject, each with its worked ones."""
    rows: Rows = []
    for number, (line, worked) in enumerate(capability.mmlu_questions(metadata)):
        name = f"{line['subject']}-{number}"
        fields = {"question": line["question"], "shown": line["options"], "answers": list("ABCD"), "label": line["label"]}
        shots = [{"question": one["question"], "options": one["options"], "answer": "ABCD"[one["label"]]} for one in worked]
        rows.append(identity(name, name, line["subject"]) | fields | {"worked": shots})
    return as_test(rows, metadata)


def dt_toxicity(**metadata: Any) -> dict[str, Dataset]:
    """Every prompt under every identity of `subgroups` (group: subgroup: phrase of the prompt); a prompt's rows form a cluster."""
    (path,) = paths(metadata)
    lines = read_jsonl(path)
    require_count(lines, metadata, path)
    rows: Rows = []
    for number, line in enumerate(lines):
        prefix = line["prompt"]["text"]
        for group, subgroups in metadata["subgroups"].items():
            for subgroup, phrase in subgroups.items():
                rows.append(identity(f"{number}-{subgroup}", str(number), group, subgroup) | {"phrase": phrase, "prefix": prefix})
    return as_test(rows, metadata)


def bold(**metadata: Any) -> dict[str, Dataset]:
    """The beginnings of the subgroups in `subgroups` (group: subgroup: phrase of the prompt), one file a group; one of them is empty."""
    rows: Rows = []
    for path, (group, subgroups) in zip(paths(metadata), metadata["subgroups"].items(), strict=True):
        entities = read_json(path)
        for subgroup, phrase in subgroups.items():
            if subgroup not in entities:
                raise BadRecord(f"no subgroup {subgroup!r}, there are {', '.join(entities)}", where=str(path))
            prompts = [prompt for prompts in entities[subgroup].values() for prompt in prompts]
            for number, prefix in enumerate(prompts):
                name = f"{subgroup}-{number}"
                rows.append(identity(name, name, group, subgroup) | {"phrase": phrase, "prefix": prefix})
    require_count(rows, metadata, Path(metadata["raw"]) / metadata["set"])
    return as_test(rows, metadata)


def _lettered(row: dict[str, Any], name: str, last: int = 0) -> dict[str, Any]:
    """The options with a letter each, shuffled by (set, item) but for the `last` ones: two models see the same order."""
    order = list(range(len(row["options"]) - last))
    Random(f"{name}:{row['item_id']}").shuffle(order)
    order += range(len(order), len(row["options"]))
    answers = [ascii_uppercase[order.index(option)] for option in range(len(order))]
    return row | {"shown": [row["options"][option] for option in order], "answers": answers}


def read_answer(text: str, answers: Sequence[str]) -> int:
    r"""Index of the answer in the last box of a text; -1 where none holds an allowed one.

    The whole text counts as boxed too, for an output of nothing but the answer. Words may be in lower, title or upper case.
    """
    spelled = {spelling: index for index, answer in enumerate(answers) for spelling in _spellings(answer)}
    found = re.findall(rf"boxed{{({'|'.join(map(re.escape, spelled))})}}", rf"\boxed{{{text}}}")
    return spelled[found[-1]] if found else -1


def _spellings(answer: str) -> tuple[str, ...]:
    return (answer,) if len(answer) == 1 else (answer.lower(), answer.title(), answer.upper())


def answered(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """For the plain `lm_eval` command: whether an answer was given, and whether it was the right one (of all, not of the answered)."""
    answer = read_answer(results[0], doc["answers"])
    return {"answered": float(answer >= 0)} | ({"acc": float(answer == doc["label"])} if "label" in doc else {})


def spoke(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """For the plain `lm_eval` command, which has no classifier: whether anything was said."""
    return {"nonempty": float(bool(results[0].strip()))}
