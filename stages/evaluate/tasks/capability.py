"""Dataset hooks of the capability tasks: files as public repositories hold them, or rows in the form of the hub (`hub` of a task file)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval.tasks.hellaswag.utils import preprocess
from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

from fairgate.support.archives import read_texts
from fairgate.support.errors import BadRecord
from stages.evaluate.tasks.reading import Rows, as_test, digest, given, identity, read_lines, read_rows, require_count

_LETTERS = "ABCD"
_INLINE = re.compile(r"Please choose the correct answer to [^:]*: (.*?)\n\n((?:Answer|Option)1: .*?)\s*Answer format: (\S+)", re.DOTALL)


def arc(**metadata: Any) -> dict[str, Dataset]:
    """Question, options (three to five) and label."""

    def fields(line: dict[str, Any], hub: bool, where: str) -> dict[str, Any]:
        if hub:
            question, options = line["question"], list(line["choices"]["text"])
            label = _index(line["answerKey"], list(line["choices"]["label"]), where)
        else:
            question, options, label = inline(line, where)
        return {"question": question, "options": options, "label": label}

    return _each(metadata, fields)


def winogrande(**metadata: Any) -> dict[str, Dataset]:
    """The sentence up to its blank with either option in it, and what follows the blank, which alone is scored."""

    def fields(line: dict[str, Any], hub: bool, where: str) -> dict[str, Any]:
        if hub:
            sentence, options = line["sentence"], [line["option1"], line["option2"]]
            label = _index(line["answer"], ["1", "2"], where)
        else:
            sentence, options, label = inline(line, where)
        before, blank, after = sentence.partition("_")
        if not blank or len(options) != 2:
            raise BadRecord(
                f"{len(options)} options for the sentence {sentence!r}", where=where, remedy="a blank and two options are needed"
            )
        return {"contexts": [before + option for option in options], "ending": after.strip(), "label": label}

    return _each(metadata, fields)


def _each(metadata: dict[str, Any], fields: Callable[[dict[str, Any], bool, str], dict[str, Any]]) -> dict[str, Dataset]:
    """A row for every record of the one file: its number as id and cluster, and `fields(record, whether in the hub's form, where)`."""
    (path,), hub = given(metadata)
    lines = read_rows(path)
    require_count(lines, metadata, path)
    rows = [identity(str(number), str(number)) | fields(line, hub, f"{path}:{number + 1}") for number, line in enumerate(lines)]
    return as_test(rows, metadata)


def inline(line: dict[str, Any], where: str) -> tuple[str, list[str], int]:
    """Question, options and label of a record that has its options written into `instruction` (`Answer1: ... Answer2: ...`)."""
    found = _INLINE.fullmatch(line["instruction"])
    if found is None:
        raise BadRecord("no options in the instruction", where=where, remedy="use the original file")
    question, listed, names = found[1], found[2], found[3].split("/")
    options = [option.strip() for option in re.split(r"(?:Answer|Option)\d: ", listed)[1:]]
    if len(options) != len(names):
        raise BadRecord(f"{len(options)} options, {len(names)} are announced", where=where, remedy="use the original file")
    return question, options, _index(line["answer"], names, where)


def hellaswag(**metadata: Any) -> dict[str, Dataset]:
    """Beginning, four endings and label; brackets of the hub's rows are cleaned as lm-eval cleans them."""
    (path,), hub = given(metadata)
    rows: Rows = []
    if hub:
        for line in read_rows(path):
            begin = preprocess(f"{line['activity_label']}: {line['ctx_a']} {line['ctx_b'].capitalize()}")
            rows.append({"query": begin, "options": [preprocess(end) for end in line["endings"]], "label": int(line["label"])})
    else:
        ((_, text),) = read_texts(path)
        lines = text.removesuffix("\n").split("\n")
        for number in range(0, len(lines), 6):
            begin, label, *endings = lines[number : number + 6]
            rows.append({"query": begin, "options": endings, "label": _index(label, ["0", "1", "2", "3"], f"{path}:{number + 2}")})
    require_count(rows, metadata, path)
    if wrong := [number for number, row in enumerate(rows) if len(row["options"]) != 4]:
        raise BadRecord(f"question {wrong[0]} has not four endings", where=str(path), remedy="use the original file")
    return as_test([identity(str(number), str(number)) | row for number, row in enumerate(rows)], metadata)


def piqa(**metadata: Any) -> dict[str, Dataset]:
    """Goal, two solutions and label."""
    files, hub = given(metadata)
    lines = read_rows(files[0])
    require_count(lines, metadata, files[0])
    labels = [str(line["label"]) for line in lines] if hub else [line for line in read_lines(files[1]) if line]
    if len(labels) != len(lines):
        raise BadRecord(f"{len(labels)} labels for {len(lines)} questions", where=str(files[-1]), remedy="use the original files")
    rows = []
    for number, (line, label) in enumerate(zip(lines, labels, strict=True)):
        fields = {
            "goal": line["goal"],
            "options": [line["sol1"], line["sol2"]],
            "label": _index(label, ["0", "1"], f"{files[-1]}:{number + 1}"),
        }
        rows.append(identity(str(number), str(number)) | fields)
    return as_test(rows, metadata)


def lambada(**metadata: Any) -> dict[str, Dataset]:
    """All but the last word, and the last word with the space before it; a repeated passage forms one cluster."""

    def fields(line: dict[str, Any], hub: bool, where: str) -> dict[str, Any]:
        passage, space, word = line["text"].rpartition(" ")
        if not passage or not word:
            raise BadRecord("no last word", where=where, remedy="use the original file")
        # The label says that the first of the two options in the item table, the word itself, is the right one.
        return {"cluster": digest(line["text"]), "passage": passage, "word": space + word, "label": 0}

    return _each(metadata, fields)


def mmlu(**metadata: Any) -> dict[str, Dataset]:
    """Question, four options and label by subject, behind `shots` worked questions of the subject in the order of the dev file."""
    rows = []
    for number, (line, worked) in enumerate(mmlu_questions(metadata)):
        shots = "".join(_asked(one) + f" {_LETTERS[one['label']]}\n\n" for one in worked)
        row = identity(f"{line['subject']}-{number}", f"{line['subject']}-{number}", line["subject"])
        rows.append(row | {"prompt": shots + _asked(line), "label": line["label"]})
    return as_test(rows, metadata)


def mmlu_questions(metadata: dict[str, Any]) -> list[tuple[dict[str, Any], Rows]]:
    """Each test question (subject, question, options, label) with the first `shots` dev questions of its subject."""
    files, hub = given(metadata)
    dev, test = [_mmlu_rows(path) for path in files] if hub else _mmlu_archive(files[0])
    require_count(test, metadata, files[-1])
    worked: dict[str, Rows] = {}
    for line in dev:
        worked.setdefault(line["subject"], []).append(line)
    shots = metadata.get("shots", 0)
    for subject in dict.fromkeys(line["subject"] for line in test):
        if (found := len(worked.get(subject, []))) < shots:
            raise BadRecord(f"{found} worked questions of {subject}, {shots} wanted", where=str(files[0]))
    return [(line, worked.get(line["subject"], [])[:shots]) for line in test]


def _asked(line: dict[str, Any]) -> str:
    options = "".join(f"\n{letter}. {option}" for letter, option in zip(_LETTERS, line["options"], strict=True))
    return f"{line['question'].strip()}{options}\nAnswer:"


def _mmlu_archive(path: Path) -> tuple[Rows, Rows]:
    """Rows of dev and test from the archive of `<part>/<subject>_<part>.csv` without headers, by subject."""
    parts: dict[str, Rows] = {"dev": [], "test": []}
    for name, text in sorted(read_texts(path)):
        part = name.split("/")[-2] if "/" in name else ""
        if part in parts and name.endswith(".csv"):
            subject = Path(name).name.removesuffix(f"_{part}.csv")
            for line in csv.reader(io.StringIO(text, newline="")):
                if len(line) != 6:
                    raise BadRecord(f"{len(line)} columns instead of 6", where=f"{path}: {name}", remedy="use the original file")
                label = _index(line[5], list(_LETTERS), f"{path}: {name}")
                parts[part].append({"subject": subject, "question": line[0], "options": line[1:5], "label": label})
    return parts["dev"], parts["test"]


def _mmlu_rows(path: Path) -> Rows:
    keys = {"subject": "subject", "question": "question", "choices": "options", "answer": "label"}
    return [{ours: line[theirs] for theirs, ours in keys.items()} for line in read_rows(path)]


def pages(**metadata: Any) -> dict[str, Dataset]:
    """WikiText by page, detokenised as lm-eval does; `words` counts those of the page before that.

    A page begins at a line ` = Title = `; sections have more than one `=`.
    """
    (path,), hub = given(metadata)
    if hub:
        found = [line["page"] for line in read_rows(path)]
    else:
        lines = path.read_text(encoding="utf-8").split("\n")
        starts = [number for number, line in enumerate(lines) if re.fullmatch(r"= [^=](.*[^=])? =", line.strip())]
        bounds = [0, *starts, len(lines)]
        parts = ["\n".join(lines[first:last]) for first, last in pairwise(bounds)]
        found = [part for part in parts if part.strip()]
    require_count(found, metadata, path)
    rows = []
    for number, page in enumerate(found):
        fields = {"page": page, "text": wikitext_detokenizer({"page": page}), "words": len(re.split(r"\s+", page))}
        rows.append(identity(f"page-{number:02d}", f"page-{number:02d}") | fields)
    return as_test(rows, metadata)


def per_word(doc: dict[str, Any], results: tuple[float]) -> dict[str, tuple[float, int]]:
    """For the plain `lm_eval` command: the log-likelihood of a page with what it is divided by."""
    return {"word_perplexity": (results[0], doc["words"])}


def _index(answer: Any, names: list[str], where: str) -> int:
    if answer not in names:
        raise BadRecord(f"answer {answer!r}, one of {', '.join(names)} is needed", where=where)
    return names.index(answer)
