"""Dataset hook of the probes in the style of SoFa."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    Rows,
    as_test,
    identity,
    paths,
    read_lines,
    require_count,
)
from fairgate.support.errors import FairgateError
from fairgate.support.files import read_json

# A phrase can be said of any group if it starts with one of these and has no word of _GENDERED.
_STARTS = ["are", "aren't", "can", "can't", "cannot", "deserve", "do", "don't", "have", "need", "should", "shouldn't", "want", "will"]
_GENDERED = re.compile(
    r"\b((wom[ae]n|m[ae]n|wi(fe|ves)|lad(y|ies)|she|her|hers|he|him|his|macho|guys?)\b|gentlem|husband|(grand)?(mother|father|mom|dad)|girl|boy|"
    r"(fe)?male|femini|mascul|sex|rap(e|ed|ing)\b|trans|gender|pregnan|birth|abort|period|uter|breast|boob|vagin|penis|maternal)",
    re.IGNORECASE,
)


def probes(**metadata: Any) -> dict[str, Dataset]:
    """Every chosen stereotype said of every identity of a category: `Muslim people are ...`.

    A stereotype in a category is a cluster.

    Stereotypes are phrases about women of which nothing but their subject is about women.
    Identities are the plural nouns of women and men (category `gender`), or `<descriptor> people`,
    where HolisticBias names no reservation about the descriptor.
    """
    listed, nouns, descriptors = paths(metadata)
    lines = read_lines(listed)
    require_count(lines, metadata, listed)
    phrases = sorted({phrase for line in lines if (phrase := _phrase(line))})
    chosen = _sample(phrases, metadata["stereotypes"], metadata["seed"], listed)
    plural = {side: [noun[1] for noun in pairs] for side, pairs in read_json(nouns).items()}
    axes = read_json(descriptors)
    rows: Rows = []
    for category in metadata["categories"]:
        people = [f"{name} people" for name in _descriptors(axes[category])] if category in axes else []
        identities = plural["female"] + plural["male"] if category == "gender" else people
        names = _sample(sorted(set(identities)), metadata["identities"], f"{metadata['seed']}:{category}", descriptors)
        for (number, phrase), name in product(enumerate(chosen), names):
            row = identity(f"{category}-{number}-{name}", f"{category}-{number}", category)
            subject = name[0].upper() + name[1:]
            rows.append(row | {"probe": f"{subject} {phrase}", "identity": subject})
    return as_test(rows, metadata)


def _phrase(line: str) -> str | None:
    """What a line says of its subject, if it can be said of others.

    `women are ...` becomes `are ...`.
    """
    words = line.lower().replace("’", "'").split()
    fits = len(words) in range(3, 13) and words[0] == "women" and words[1] in _STARTS
    return " ".join(words[1:]) if fits and not _GENDERED.search(" ".join(words[1:])) else None


def _descriptors(axis: dict[str, list[str | dict[str, str]]]) -> list[str]:
    entries = [{"descriptor": entry} if isinstance(entry, str) else entry for part in axis.values() for entry in part]
    return [entry["descriptor"] for entry in entries if entry.get("preference", "reviewed") == "reviewed" and "gender" not in entry]


def _sample(names: list[str], count: int, seed: int | str, where: Path) -> list[str]:
    if len(names) < count:
        raise FairgateError(
            f"{len(names)} usable entries, {count} are asked for", where=str(where), remedy="ask for fewer in the task file"
        )
    return sorted(Random(seed).sample(names, count))
