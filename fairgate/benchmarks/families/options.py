"""Readers of questions with options."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    as_test,
    given,
    identity,
    index_of,
    paths,
    read_rows,
    require_count,
)
from fairgate.support.errors import BadRecord
from fairgate.support.files import read_jsonl

_INLINE = re.compile(r"Please choose the correct answer to [^:]*: (.*?)\n\n((?:Answer|Option)1: .*?)\s*Answer format: (\S+)", re.DOTALL)


def lettered(**metadata: Any) -> dict[str, Dataset]:
    """Lines of {question, options: "A. …\\nB. …", answer: "B. …"}.

    The rows have question, options without letters, index of the answer.
    """
    (path,) = paths(metadata)
    lines = read_jsonl(path)
    require_count(lines, metadata, path)
    rows = []
    for number, line in enumerate(lines):
        options = re.split(r"\n(?=[A-Z]\. )", line["options"])
        if line["answer"] not in options or len(options) != metadata["options"]:
            raise BadRecord(f"{len(options)} options, answer {line['answer']!r}", where=f"{path}:{number + 1}")
        # The carrier ends a question with a space, which would move into the option.
        fields = {"question": line["question"].rstrip(), "options": [o[3:] for o in options], "label": options.index(line["answer"])}
        rows.append(identity(str(number), str(number)) | fields)
    return as_test(rows, metadata)


def each_record(metadata: dict[str, Any], fields: Callable[[dict[str, Any], bool, str], dict[str, Any]]) -> dict[str, Dataset]:
    """A row for every record of the one file.

    Its number is its id and its cluster; `fields(record, whether in the hub's form, where)` gives
    the other columns.
    """
    (path,), hub = given(metadata)
    lines = read_rows(path)
    require_count(lines, metadata, path)
    rows = [identity(str(number), str(number)) | fields(line, hub, f"{path}:{number + 1}") for number, line in enumerate(lines)]
    return as_test(rows, metadata)


def inline(line: dict[str, Any], where: str) -> tuple[str, list[str], int]:
    """Question, options and label of a record with its options in `instruction`.

    They are written there as `Answer1: ... Answer2: ...`.
    """
    match = _INLINE.fullmatch(line["instruction"])
    if match is None:
        raise BadRecord("no options in the instruction", where=where, remedy="use the original file")
    question, listed, names = match[1], match[2], match[3].split("/")
    options = [option.strip() for option in re.split(r"(?:Answer|Option)\d: ", listed)[1:]]
    if len(options) != len(names):
        raise BadRecord(f"{len(options)} options, {len(names)} are announced", where=where, remedy="use the original file")
    return question, options, index_of(line["answer"], names, where)
