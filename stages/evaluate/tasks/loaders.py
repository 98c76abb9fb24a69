"""Dataset hooks of the task files in this folder.

Each hook is called with the task's `metadata` and gives the split `test`: one row per item with `item_id`, `cluster` (what a bootstrap
keeps together), `group`, `subgroup` and the fields of the prompt. The file list and the accepted record counts are data of the task file;
another count is an error, because a metric over an unknown part of a benchmark compares with nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from datasets import Dataset

from fairgate.contracts.records import Split, read_record
from fairgate.support.errors import BadRecord
from fairgate.support.files import read_json, read_jsonl
from stages.evaluate.tasks.reading import Rows, as_test, digest, identity, normalise, paths, read_csv, read_lines, require_count


def stereoset(**metadata: Any) -> dict[str, Dataset]:
    """Items of a `part` (intrasentence), of `types` only where they are named.

    With `terms: development` only those whose target term the split file holds out for development.
    """
    (path,) = paths(metadata)
    items = read_json(path)["data"][metadata.get("part", "intrasentence")]
    require_count(items, metadata, path)
    items = [item for item in items if item["bias_type"] in metadata.get("types", [item["bias_type"]])]
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
        row = identity(item["id"], item["target"], item["bias_type"]) | {"context": item["context"]}
        rows.append(row | {label.replace("-", "_"): text for label, text in sentences.items()})
    return as_test(rows, metadata)


def crows_pairs(**metadata: Any) -> dict[str, Dataset]:
    """Sentence pairs; the subgroup is the direction (stereo, antistereo)."""
    (path,) = paths(metadata)
    lines = read_csv(path)
    require_count(lines, metadata, path)
    keep = ("sent_more", "sent_less")
    return as_test([identity(r[""], r[""], r["bias_type"], r["stereo_antistereo"]) | {k: r[k] for k in keep} for r in lines], metadata)


def lettered(**metadata: Any) -> dict[str, Dataset]:
    """Lines of {question, options: "A. …\\nB. …", answer: "B. …"}: question, options without letters, index of the answer."""
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


def boolq(**metadata: Any) -> dict[str, Dataset]:
    """Passage, question and label (0 no, 1 yes); questions on one passage form a cluster."""
    (path,) = paths(metadata)
    lines = read_jsonl(path)
    require_count(lines, metadata, path)
    rows = []
    for number, line in enumerate(lines):
        if str(line["answer"]) not in ("True", "False"):
            raise BadRecord(f"answer {line['answer']!r}, True or False is needed", where=f"{path}:{number + 1}")
        fields = {"passage": line["passage"], "question": line["question"], "label": int(str(line["answer"]) == "True")}
        rows.append(identity(str(number), digest(line["passage"])) | fields)
    return as_test(rows, metadata)


def passages(**metadata: Any) -> dict[str, Dataset]:
    """One document: every different passage once, in file order, joined by an empty line."""
    (path,) = paths(metadata)
    lines = read_jsonl(path)
    require_count(lines, metadata, path)
    text = "\n\n".join(dict.fromkeys(line["passage"] for line in lines))
    return as_test([identity("0", "0") | {"text": text}], metadata)


def held_out_text(**metadata: Any) -> dict[str, Dataset]:
    """One document: the texts that calibrate held out for development, in a file beside the split file."""
    lines = read_jsonl(Path(metadata["split"]).parent / metadata["file"], written_by="calibrate")
    return as_test([identity("0", "0") | {"text": "\n\n".join(line["text"] for line in lines)}], metadata)


def plain_text(**metadata: Any) -> dict[str, Dataset]:
    """One document: the file's text as it stands."""
    (path,) = paths(metadata)
    text = path.read_text(encoding="utf-8")
    require_count(text.splitlines(), metadata, path)
    return as_test([identity("0", "0") | {"text": text}], metadata)


def redditbias(**metadata: Any) -> dict[str, Dataset]:
    """Comment about the target group and its copy with the group word swapped; comments in the files of `without` are left out."""
    known = {
        normalise(row[side]) for path in paths(metadata, "without") for row in read_csv(path) for side in ("comments", "comments_processed")
    }
    rows: Rows = []
    total: Rows = []
    for path, group in zip(paths(metadata), metadata["groups"], strict=True):
        for number, line in enumerate(read_csv(path)):
            total.append(line)
            target, swapped = line["comments"], line["comments_processed"]
            if normalise(target) in known or normalise(swapped) in known or target == swapped:
                continue
            item = f"{group}-{number}"
            rows.append(identity(item, item, group.split("-")[0], group) | {"target": target, "swapped": swapped})
    require_count(total, metadata, Path(metadata["raw"]) / metadata["set"])
    return as_test(rows, metadata)


def winobias(**metadata: Any) -> dict[str, Dataset]:
    """Lines `N The [developer] argued with the designer because [she] ...`: who is meant, the referent or the neighbour line's.

    Lines 2k - 1 and 2k of a file swap the occupation and form a cluster, together with those of the other side. Items whose neighbour
    names the same referent have no wrong option and are left out. Group: gender, or with `group: type` the type of the sentences.
    """
    rows: Rows = []
    total = 0
    for path, (side, kind) in zip(paths(metadata), metadata["parts"], strict=True):
        lines = [_brackets(line, f"{path}:{number + 1}") for number, line in enumerate(read_lines(path))]
        total += len(lines)
        for number, (sentence, referent, pronoun) in enumerate(lines):
            other = lines[number ^ 1][1]
            options = sorted({referent, other})
            if len(options) == 2:
                subgroup = f"{side}_{'male' if pronoun in ('he', 'him', 'his') else 'female'}"
                fields = {"sentence": sentence, "pronoun": pronoun.capitalize(), "options": options, "label": options.index(referent)}
                group = kind if metadata.get("group") == "type" else "gender"
                rows.append(identity(f"{side}-{kind}-{number}", f"{kind}-{number // 2}", group, subgroup) | fields)
    require_count([None] * total, metadata, Path(metadata["raw"]) / metadata["set"])
    return as_test(rows, metadata)


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
