"""Leakage: normalized sentences and target terms that two data sets share."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fairgate.contracts.records import Overlap
from fairgate.support.archives import read_texts
from fairgate.support.errors import FairgateError
from fairgate.support.files import parse_json
from fairgate.support.library_errors import translated

MIN_WORDS = 4  # a shared "Yes." or "However" is no leak

_BOUNDARY = re.compile(r"(?<=[.!?])\s+|\n")
_NUMBER = re.compile(r"^\s*\d+\s+")
_SEPARATOR = re.compile(r"[\W_]+")


class Leak(FairgateError):
    """A sentence or term of a gate set also occurs in the calibration data."""


def normalize_sentence(text: str) -> str:
    """The words of a sentence in lower case, one space apart, without a leading line number."""
    return _SEPARATOR.sub(" ", _NUMBER.sub("", text).lower()).strip()


def sentences(texts: Iterable[str]) -> set[str]:
    """The normalized sentences of at least MIN_WORDS words."""
    normalized = (normalize_sentence(part) for text in texts for part in _BOUNDARY.split(text))
    return {sentence for sentence in normalized if sentence.count(" ") + 1 >= MIN_WORDS}


def texts_of(folder: Path) -> Iterator[str]:
    """Every string in the files of a data set: JSON and parquet values, CSV cells, text lines."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix == ".parquet":
            with translated("the parquet file cannot be read", where=str(file), remedy="fetch it again (`dvc repro fetch`)"):
                rows = pq.read_table(file).to_pylist()
            yield from _strings(rows)
            continue
        for name, text in read_texts(file):
            suffix = Path(name).suffix
            if suffix == ".jsonl":
                for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
                    yield from _strings(parse_json(line, f"{file}:{number}", written_by="fetch"))
            elif suffix == ".json":
                yield from _strings(parse_json(text, str(file), written_by="fetch"))
            elif suffix in (".csv", ".tsv"):
                with translated("the table cannot be read", where=str(file), remedy="fetch it again (`dvc repro fetch`)"):
                    cells = list(csv.reader(text.splitlines(), delimiter="\t" if suffix == ".tsv" else ","))
                yield from chain.from_iterable(cells)
            else:
                yield from text.splitlines()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def shared_sentences(first: str, ours: set[str], second: str, theirs: set[str], *, refused: bool) -> Overlap:
    """Count the sentences that two data sets share.

    Args:
        first: name of the calibration data.
        ours: its sentences.
        second: name of the other data set.
        theirs: its sentences.
        refused: whether a shared sentence is an error.

    Raises:
        Leak: they share a sentence, and `refused` is set.
    """
    common = ours & theirs
    if common and refused:
        raise Leak(
            f"{len(common)} normalized sentences of {first} occur in {second}, e.g. {min(common)!r}",
            where="calibrate",
            remedy=f"remove them from the calibration data, or give up {second} as a gate set",
        )
    return Overlap(first=first, second=second, kind="sentence", count=len(common), refused=refused)


def shared_terms(first: str, terms: Iterable[str], second: str, words: set[str]) -> Overlap:
    """Count the target terms that occur as words of another data set. That is no error."""
    count = sum(all(word in words for word in normalize_sentence(term).split()) for term in terms)
    return Overlap(first=first, second=second, kind="term", count=count, refused=False)
