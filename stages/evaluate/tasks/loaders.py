"""Dataset hooks of the task files in this folder.

Each hook is called with the task's `metadata` and gives the split `test`: one row per item with `item_id`, `cluster` (what a bootstrap
keeps together), `group`, `subgroup` and the fields of the prompt. The file list and the accepted record counts are data of the task file;
another count is an error, because a metric over an unknown part of a benchmark compares with nothing.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from stages.common.errors import BadRecord, FairgateError, MissingFile
from stages.common.files import read_json, read_jsonl
from stages.common.records import Split, read_record

Rows = list[dict[str, Any]]


def stereoset(**metadata: Any) -> dict[str, Dataset]:
    """Intrasentence items; with `terms: development` only those whose target term the split file holds out for development."""
    (path,) = _paths(metadata)
    items = read_json(path)["data"]["intrasentence"]
    _count(items, metadata, path)
    if metadata.get("terms"):
        split = read_record(Split, metadata["split"])
        held_out = set(getattr(split, f"{metadata['terms']}_terms"))
        # The split file has its terms in lower case.
        items = [item for item in items if item["target"].lower() in held_out]
        if absent := held_out - {item["target"].lower() for item in items}:
            remedy = "run `dvc repro calibrate` to write the split again"
            raise BadRecord(f"no item has the held-out term {min(absent)!r}", where=str(path), remedy=remedy)
    rows = []
    for item in items:
        sentences = {sentence["gold_label"]: sentence["sentence"] for sentence in item["sentences"]}
        if sorted(sentences) != ["anti-stereotype", "stereotype", "unrelated"] or len(item["sentences"]) != 3:
            raise BadRecord(f"labels {sorted(sentences)}, one of each is needed", where=f"{path}: item {item['id']}")
        row = _row(item["id"], item["target"], item["bias_type"])
        rows.append(row | {label.replace("-", "_"): text for label, text in sentences.items()})
    return _test(rows, metadata)


def crows_pairs(**metadata: Any) -> dict[str, Dataset]:
    """Sentence pairs; the subgroup is the direction (stereo, antistereo)."""
    (path,) = _paths(metadata)
    lines = _csv(path)
    _count(lines, metadata, path)
    keep = ("sent_more", "sent_less")
    return _test([_row(r[""], r[""], r["bias_type"], r["stereo_antistereo"]) | {k: r[k] for k in keep} for r in lines], metadata)


def lettered(**metadata: Any) -> dict[str, Dataset]:
    """Lines of {question, options: "A. …\\nB. …", answer: "B. …"}: question, options without letters, index of the answer."""
    (path,) = _paths(metadata)
    lines = read_jsonl(path)
    _count(lines, metadata, path)
    rows = []
    for number, line in enumerate(lines):
        options = re.split(r"\n(?=[A-Z]\. )", line["options"])
        if line["answer"] not in options or len(options) != metadata["options"]:
            raise BadRecord(f"{len(options)} options, answer {line['answer']!r}", where=f"{path}:{number + 1}")
        # The carrier ends a question with a space, which would move into the option.
        fields = {"question": line["question"].rstrip(), "options": [o[3:] for o in options], "label": options.index(line["answer"])}
        rows.append(_row(str(number), str(number)) | fields)
    return _test(rows, metadata)


def boolq(**metadata: Any) -> dict[str, Dataset]:
    """Passage, question and label (0 no, 1 yes); questions on one passage form a cluster."""
    (path,) = _paths(metadata)
    lines = read_jsonl(path)
    _count(lines, metadata, path)
    rows = []
    for number, line in enumerate(lines):
        if str(line["answer"]) not in ("True", "False"):
            raise BadRecord(f"answer {line['answer']!r}, True or False is needed", where=f"{path}:{number + 1}")
        fields = {"passage": line["passage"], "question": line["question"], "label": int(str(line["answer"]) == "True")}
        rows.append(_row(str(number), _hash(line["passage"])) | fields)
    return _test(rows, metadata)


def passages(**metadata: Any) -> dict[str, Dataset]:
    """One document: every different passage once, in file order, joined by an empty line."""
    (path,) = _paths(metadata)
    lines = read_jsonl(path)
    _count(lines, metadata, path)
    text = "\n\n".join(dict.fromkeys(line["passage"] for line in lines))
    return _test([_row("0", "0") | {"text": text}], metadata)


def held_out_text(**metadata: Any) -> dict[str, Dataset]:
    """One document: the texts that calibrate held out for development, in a file beside the split file."""
    lines = read_jsonl(Path(metadata["split"]).parent / metadata["file"], written_by="calibrate")
    return _test([_row("0", "0") | {"text": "\n\n".join(line["text"] for line in lines)}], metadata)


def plain_text(**metadata: Any) -> dict[str, Dataset]:
    """One document: the file's text as it stands."""
    (path,) = _paths(metadata)
    text = path.read_text(encoding="utf-8")
    _count(text.splitlines(), metadata, path)
    return _test([_row("0", "0") | {"text": text}], metadata)


def redditbias(**metadata: Any) -> dict[str, Dataset]:
    """Comment about the target group and its copy with the group word swapped; comments in the files of `without` are left out."""
    known = {
        _normalise(row[side]) for path in _paths(metadata, "without") for row in _csv(path) for side in ("comments", "comments_processed")
    }
    rows: Rows = []
    total: Rows = []
    for path, group in zip(_paths(metadata), metadata["groups"], strict=True):
        for number, line in enumerate(_csv(path)):
            total.append(line)
            target, swapped = line["comments"], line["comments_processed"]
            if _normalise(target) in known or _normalise(swapped) in known or target == swapped:
                continue
            item = f"{group}-{number}"
            rows.append(_row(item, item, group.split("-")[0], group) | {"target": target, "swapped": swapped})
    _count(total, metadata, Path(metadata["raw"]) / metadata["set"])
    return _test(rows, metadata)


def winobias(**metadata: Any) -> dict[str, Dataset]:
    """Lines `N The [developer] argued with the designer because [she] ...`: who is meant, the referent or the neighbour line's.

    Lines 2k - 1 and 2k of a file swap the occupation and form a cluster, together with those of the other side. Items whose neighbour
    names the same referent have no wrong option and are left out.
    """
    rows: Rows = []
    total = 0
    for path, (side, kind) in zip(_paths(metadata), metadata["parts"], strict=True):
        lines = [_brackets(line, f"{path}:{number + 1}") for number, line in enumerate(_lines(path))]
        total += len(lines)
        for number, (sentence, referent, pronoun) in enumerate(lines):
            other = lines[number ^ 1][1]
            options = sorted({referent, other})
            if len(options) == 2:
                subgroup = f"{side}_{'male' if pronoun in ('he', 'him', 'his') else 'female'}"
                fields = {"sentence": sentence, "pronoun": pronoun.capitalize(), "options": options, "label": options.index(referent)}
                rows.append(_row(f"{side}-{kind}-{number}", f"{kind}-{number // 2}", "gender", subgroup) | fields)
    _count([None] * total, metadata, Path(metadata["raw"]) / metadata["set"])
    return _test(rows, metadata)


def _brackets(line: str, where: str) -> tuple[str, str, str]:
    """Sentence, referent and pronoun of one WinoBias line; a third bracket repeats the pronoun."""
    marked = re.findall(r"\[(.*?)\]", line)
    if len(marked) < 2 or marked[1].lower() not in ("he", "him", "his", "she", "her", "hers"):
        raise BadRecord(f"brackets {marked}: a referent and a pronoun are needed", where=where)
    sentence = re.sub(r"^\d+ |[\[\]]", "", line).strip()
    return sentence, re.sub(r"^(the|an?) ", "", marked[0].strip(), flags=re.I), marked[1].lower()


def prefers_first(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """For the plain `lm_eval` command, which knows no token counts: both measures are of the summed log-likelihood."""
    first, second = results[0][0], results[1][0]
    return {"pct_stereotype": float(first > second), "likelihood_diff": abs(first - second)}


def _paths(metadata: dict[str, Any], key: str = "files") -> list[Path]:
    raw = Path(metadata["raw"])
    paths = [raw / name for name in metadata.get(key, [])]
    for path in paths:
        if not path.is_file():
            raise MissingFile(
                f"no data for {metadata['set']}", where=str(path), remedy="run `dvc repro fetch`, or name the folder as `raw`"
            )
    return paths


def _count(rows: Sequence[Any], metadata: dict[str, Any], where: Path) -> None:
    found = len(rows)
    accepted = metadata["records"]
    if found not in accepted.values():
        known = ", ".join(f"{count} ({origin})" for origin, count in accepted.items())
        raise FairgateError(
            f"{found} records, accepted are {known}",
            where=str(where),
            remedy="the file is cut or another edition: run `dvc repro fetch`, or add the count to the task file with its origin",
        )


def _row(item: str, cluster: str, group: str | None = None, subgroup: str | None = None) -> dict[str, Any]:
    return {"item_id": item, "cluster": cluster, "group": group, "subgroup": subgroup}


def _test(rows: Rows, metadata: dict[str, Any]) -> dict[str, Dataset]:
    if not rows:
        raise FairgateError(
            "no item is left", where=str(metadata["set"]), remedy="look at the split file and at the filters of the task file"
        )
    return {"test": Dataset.from_list(rows)}


def _csv(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _normalise(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
