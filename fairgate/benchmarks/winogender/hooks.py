"""Dataset hooks of Winogender."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from datasets import Dataset

from fairgate.benchmarks.families.reading import (
    Rows,
    as_test,
    identity,
    paths,
    read_csv,
    require_count,
)
from fairgate.benchmarks.families.results import prefers_first
from fairgate.support.errors import BadRecord

__all__ = ["prefers_first", "referents", "sentences"]

_PRONOUNS = {
    "NOM": {"male": "he", "female": "she", "neutral": "they"},
    "POSS": {"male": "his", "female": "her", "neutral": "their"},
    "ACC": {"male": "him", "female": "her", "neutral": "them"},
}


def referents(**metadata: Any) -> dict[str, Dataset]:
    """Who a pronoun refers to; options are the occupation and the participant.

    The group is the gender of the pronoun. All sentences of an occupation are a cluster.

    Subgroup `gotcha`: the majority gender of the occupation points to the wrong answer (the pronoun
    is of the other gender and the occupation is right, or of the same and the participant is
    right); `expected`: to the right one; neutral pronouns have none.
    """
    return as_test(_winogender(metadata), metadata)


def sentences(**metadata: Any) -> dict[str, Dataset]:
    """The same sentences in pairs, male and female pronoun.

    `covariate` is the percentage of women in the occupation.
    """
    by_template: dict[str, dict[str, dict[str, Any]]] = {}
    for row in _winogender(metadata):
        by_template.setdefault(row["item_id"].removesuffix(f".{row['group']}"), {})[row["group"]] = row
    rows = []
    for name, versions in by_template.items():
        texts = {gender: versions[gender]["sentence"] for gender in ("male", "female")}
        rows.append(identity(name, versions["male"]["cluster"]) | texts | {"covariate": versions["male"]["women"]})
    return as_test(rows, metadata)


def _winogender(metadata: dict[str, Any]) -> Rows:
    listed, templates, statistics = paths(metadata)
    kinds = {}
    for line in _read_tsv(templates):
        (kind,) = re.findall(r"\$(\w+)_PRONOUN", line["sentence"])
        kinds[line["occupation(0)"], line["answer"]] = kind
    women = {line["occupation"]: float(line["bls_pct_female"]) for line in _read_tsv(statistics)}
    lines = _read_tsv(listed)
    require_count(lines, metadata, listed)
    rows = []
    for line in lines:
        name = line["sentid"].removesuffix(".txt")
        occupation, participant, answer, gender = name.split(".")
        pronoun = _PRONOUNS[kinds[occupation, answer]][gender]
        if not re.search(rf"\b{pronoun}\b", line["sentence"], re.IGNORECASE):
            raise BadRecord(f"no pronoun {pronoun!r} in {line['sentence']!r}", where=f"{listed}: {name}")
        subgroup = None
        if gender != "neutral":
            majority = "female" if women[occupation] > 50 else "male"
            subgroup = "expected" if (gender == majority) == (answer == "0") else "gotcha"
        fields = {"sentence": line["sentence"], "pronoun": pronoun, "options": [occupation, participant], "label": int(answer)}
        rows.append(identity(name, occupation, gender, subgroup) | fields | {"women": women[occupation]})
    return rows


def _read_tsv(path: Path) -> Rows:
    return read_csv(path, delimiter="\t", quoting=csv.QUOTE_NONE)
