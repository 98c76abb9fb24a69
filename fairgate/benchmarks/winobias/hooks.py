"""Dataset hooks of WinoBias."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.boxed import letters
from fairgate.benchmarks.families.reading import (
    Rows,
    as_test,
    identity,
    paths,
    read_lines,
    require_count,
)
from fairgate.benchmarks.families.results import answered
from fairgate.support.errors import BadRecord

__all__ = ["answered", "occupations", "with_letters"]


def occupations(**metadata: Any) -> dict[str, Dataset]:
    """Lines `N The [developer] argued with the designer because [she] ...`.

    Which occupation is meant: that of this line, or that of the neighbor line?

    Lines 2k - 1 and 2k of a file swap the occupation and form a cluster, together with those of the
    other side. Items whose neighbor names the same referent have no wrong option and are left out.
    Group: gender, or with `group: type` the type of the sentences.
    """
    rows: Rows = []
    total = 0
    for path, (side, kind) in zip(paths(metadata), metadata["parts"], strict=True):
        lines = [_brackets(line, f"{path}:{number + 1}") for number, line in enumerate(read_lines(path))]
        total += len(lines)
        for number, (sentence, referent, pronoun) in enumerate(lines):
            neighbor = lines[number ^ 1][1]
            options = sorted({referent, neighbor})
            if len(options) == 2:
                subgroup = f"{side}_{'male' if pronoun in ('he', 'him', 'his') else 'female'}"
                fields = {"sentence": sentence, "pronoun": pronoun.capitalize(), "options": options, "label": options.index(referent)}
                group = kind if metadata.get("group") == "type" else "gender"
                rows.append(identity(f"{side}-{kind}-{number}", f"{kind}-{number // 2}", group, subgroup) | fields)
    require_count([None] * total, metadata, Path(metadata["raw"]) / metadata["set"])
    return as_test(rows, metadata)


def with_letters(**metadata: Any) -> dict[str, Dataset]:
    """The lines of `occupations`, both occupations in an order of their own for each line."""
    rows = occupations(**metadata)["test"].to_list()
    return as_test([letters(row, metadata["set"]) | {"pronoun": row["pronoun"].lower()} for row in rows], metadata)


def _brackets(line: str, where: str) -> tuple[str, str, str]:
    """Sentence, referent and pronoun of one WinoBias line; a third bracket repeats the pronoun."""
    marked = re.findall(r"\[(.*?)\]", line)
    if len(marked) < 2 or marked[1].lower() not in ("he", "him", "his", "she", "her", "hers"):
        raise BadRecord(f"brackets {marked}: a referent and a pronoun are needed", where=where)
    sentence = re.sub(r"^\d+ |[\[\]]", "", line).strip()
    return sentence, re.sub(r"^(the|an?) ", "", marked[0].strip(), flags=re.I), marked[1].lower()
