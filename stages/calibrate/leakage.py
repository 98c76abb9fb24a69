"""Normalised sentences and target terms that two sets share."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fairgate.contracts.records import Overlap
from fairgate.support.archives import read_texts
from fairgate.support.errors import FairgateError

MIN_WORDS = 4  # a shared "Yes." or "However" is no leak

_BOUNDARY = re.compile(r"(?<=[.!?])\s+|\n")
_NUMBER = re.compile(r"^\s*\d+\s+")
_SEPARATOR = re.compile(r"[\W_]+")


class Leak(FairgateError):
    """A sentence or term of a set that is reported also occurs in the calibration data."""


def normalise(text: str) -> str:
    """Lower case, words only, single spaces; a leading line number goes."""
    return _SEPARATOR.sub(" ", _NUMBER.sub("", text).lower()).strip()


def sentences(texts: Iterable[str]) -> set[str]:
    """The normalised sentences of at least MIN_WORDS words."""
    found = (normalise(part) for text in texts for part in _BOUNDARY.split(text))
    return {sentence for sentence in found if sentence.count(" ") + 1 >= MIN_WORDS}


def texts_of(folder: Path) -> Iterator[str]:
    """Every string in the files of a raw set: JSON and parquet values, CSV cells, text lines."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix == ".parquet":
            yield from _strings(pq.read_table(file).to_pylist())
            continue
        for name, text in read_texts(file):
            suffix = Path(name).suffix
            if suffix == ".jsonl":
                for line in text.splitlines():
                    yield from _strings(json.loads(line))
            elif suffix == ".json":
                yield from _strings(json.loads(text))
            elif suffix in (".csv", ".tsv"):
                for row in csv.reader(text.splitlines(), delimiter="\t" if suffix == ".tsv" else ","):
                    yield from row
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
    """How many sentences two sets share; Leak if any and `refused`."""
    common = ours & theirs
    if common and refused:
        raise Leak(
            f"{len(common)} normalised sentences of {first} occur in {second}, e.g. {min(common)!r}",
            where="calibrate",
            remedy=f"remove them from the calibration data, or give up {second} as a gate set",
        )
    return Overlap(first=first, second=second, kind="sentence", count=len(common), refused=refused)


def shared_terms(first: str, terms: Iterable[str], second: str, words: set[str]) -> Overlap:
    """How many target terms merely occur as words of another set: counted, not refused."""
    count = sum(all(word in words for word in normalise(term).split()) for term in terms)
    return Overlap(first=first, second=second, kind="term", count=count, refused=False)
