"""Dataset hooks of bias tasks that choose between options by likelihood."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval.tasks.bbq import utils as published

from fairgate.support.errors import BadRecord
from fairgate.support.files import read_jsonl
from stages.evaluate.tasks import bias
from stages.evaluate.tasks.reading import Rows, as_test, identity, paths, require_count

_PRONOUNS = {
    "NOM": {"male": "he", "female": "she", "neutral": "they"},
    "POSS": {"male": "his", "female": "her", "neutral": "their"},
    "ACC": {"male": "him", "female": "her", "neutral": "them"},
}


def winogender(**metadata: Any) -> dict[str, Dataset]:
    """Who a pronoun refers to: options occupation, participant. Group: gender of the pronoun; all sentences of an occupation are a cluster.

    Subgroup `gotcha`: the majority gender of the occupation points to the wrong answer (the pronoun is of the other gender and the
    occupation is right, or of the same and the participant is right); `expected`: to the right one; neutral pronouns have none.
    """
    return as_test(_winogender(metadata), metadata)


def winogender_sentences(**metadata: Any) -> dict[str, Dataset]:
    """The same sentences in pairs, male and female pronoun; `covariate` is the percentage of women in the occupation."""
    by_template: dict[str, dict[str, dict[str, Any]]] = {}
    for row in _winogender(metadata):
        by_template.setdefault(row["item_id"].removesuffix(f".{row['group']}"), {})[row["group"]] = row
    rows = []
    for name, versions in by_template.items():
        sentences = {gender: versions[gender]["sentence"] for gender in ("male", "female")}
        rows.append(identity(name, versions["male"]["cluster"]) | sentences | {"covariate": versions["male"]["women"]})
    return as_test(rows, metadata)


def _winogender(metadata: dict[str, Any]) -> Rows:
    sentences, templates, statistics = paths(metadata)
    kinds = {}
    for line in _read_tsv(templates):
        (kind,) = re.findall(r"\$(\w+)_PRONOUN", line["sentence"])
        kinds[line["occupation(0)"], line["answer"]] = kind
    women = {line["occupation"]: float(line["bls_pct_female"]) for line in _read_tsv(statistics)}
    lines = _read_tsv(sentences)
    require_count(lines, metadata, sentences)
    rows = []
    for line in lines:
        name = line["sentid"].removesuffix(".txt")
        occupation, participant, answer, gender = name.split(".")
        pronoun = _PRONOUNS[kinds[occupation, answer]][gender]
        if not re.search(rf"\b{pronoun}\b", line["sentence"], re.IGNORECASE):
            raise BadRecord(f"no pronoun {pronoun!r} in {line['sentence']!r}", where=f"{sentences}: {name}")
        subgroup = None
        if gender != "neutral":
            majority = "female" if women[occupation] > 50 else "male"
            subgroup = "expected" if (gender == majority) == (answer == "0") else "gotcha"
        fields = {"sentence": line["sentence"], "pronoun": pronoun, "options": [occupation, participant], "label": int(answer)}
        rows.append(identity(name, occupation, gender, subgroup) | fields | {"women": women[occupation]})
    return rows


def _read_tsv(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def bbq(**metadata: Any) -> dict[str, Dataset]:
    """The questions of `bias.bbq`: options stereotyped, other, unknown."""
    return as_test(bias.bbq(metadata), metadata)


def dt_fairness(**metadata: Any) -> dict[str, Dataset]:
    """The persons of `bias.dt_fairness`: options yes, no."""
    return as_test(bias.dt_fairness(metadata), metadata)


class _Docs(list[dict[str, Any]]):
    """Rows with the one method of a dataset that the published hook calls: a dataset itself would rewrite 58,000 of them on disk."""

    def map(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
        return [change(row) for row in self]


def bbq_lmeval(**metadata: Any) -> dict[str, Dataset]:
    """BBQ by the hooks of lm-eval's own task `bbq`: two named answers and ten spellings of "unknown".

    `covariate` says which of the two is biased by its rule: 1 the first, 2 the second, 3 both, 0 neither.
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
