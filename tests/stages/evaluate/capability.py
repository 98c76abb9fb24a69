"""Capability files in their real formats, and the same items as rows of the hub, with made-up
content.
"""

from __future__ import annotations

import bz2
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.stages.evaluate.raw import task_file, write_tasks

COUNTS = {
    "arc_easy": 3,
    "arc_challenge": 3,
    "hellaswag": 3,
    "piqa_full": 3,
    "winogrande": 3,
    "lambada": 4,
    "mmlu_ll": 4,
    "mmlu_ll_5shot": 4,
}
COUNTS |= {"wikitext_lmeval": 3, "wikitext2_2048": 51}
ARC = [
    ("Which plane leaves first?", ["the old one", "the dry one", "the pilot's", "none"], 2),
    ("A pilot reads\n\nthe map. Why?", ["to land", "to sell: bread", "to wait"], 0),
    ("What has salt?", ["bread", "roses", "maps", "ground", "planes"], 4),
]
HELLASWAG = [
    (f"Baking: A cook opens the window {n}. he", n, [f"sells {n} maps.", "waters the roses.", "adds salt to it.", "leaves."])
    for n in range(3)
]
PIQA = [
    {"goal": f"how do you open window {n}?", "sol1": "turn the handle and push ", "sol2": "ask the cook", "label": n % 2} for n in range(3)
]
WINOGRANDE = [
    ("The pilot met the cook because _ wanted bread.", ["the pilot", "the cook"], 0),
    ("The map was older than the plane, so _ was sold first.", ["map", "plane"], 1),
    ("_ was dry.", ["The morning", "The harbour"], 0),
]
LAMBADA = ["The pilot reads the old map", 'She sells bread.\n\n"Salt,', "A cook waters roses", "A cook waters roses"]
PAGES = [
    ' = Old harbour = \n \n The harbour , which is @-@ old , sells 1 @,@ 200 maps . \n = = Bread = = \n " Salt " is sold ( too ) . \n ',
    " = Pilot = \n A pilot reads 's map : it is dry . \n ",
    " = Roses = " + "\n The gardener watered the roses . " * 40,
]
WIKI = " \n" + "\n".join(PAGES)


def mmlu() -> dict[str, list[dict[str, Any]]]:
    """Two subjects, five questions of each in dev and two in test."""
    return {
        part: [
            {
                "subject": subject,
                "question": f" Which {subject} {part} {n}?\nSay",
                "choices": [f"{n}", "b, c", 'the "d"', "e"],
                "answer": n % 4,
            }
            for subject in ("bread_science", "maps")
            for n in range(count)
        ]
        for part, count in (("dev", 5), ("test", 2))
    }


def inline(kind: str, question: str, options: list[str], label: int, glue: str) -> dict[str, str]:
    listed = " ".join(f"{kind.capitalize()}{n}: {option}" for n, option in enumerate(options, 1))
    form = "/".join(f"{kind}{n}" for n in range(1, len(options) + 1))
    answer = f"{kind}{label + 1}"
    head = "Please choose the correct answer to the question: "
    return {"instruction": f"{head}{question}\n\n{listed}{glue}Answer format: {form}", "input": "", "output": "", "answer": answer}


def write_files(raw: Path) -> Path:
    """As the public repositories hold them."""
    arc = json.dumps([inline("answer", *item, "\n\n") for item in ARC])
    _write(raw / "arc_easy" / "llm_adapters_ARC-Easy_test.json", arc)
    _write(raw / "arc_challenge" / "llm_adapters_ARC-Challenge_test.json", arc)
    text = "".join(f"{begin}\n{label}\n" + "\n".join(endings) + "\n" for begin, label, endings in HELLASWAG)
    _write(raw / "hellaswag" / "hellaswag_val_full.txt.bz2", bz2.compress(text.encode()))
    _write(raw / "piqa_full" / "valid.jsonl", "".join(json.dumps({k: v for k, v in row.items() if k != "label"}) + "\n" for row in PIQA))
    _write(raw / "piqa_full" / "valid-labels.lst", "".join(f"{row['label']}\n" for row in PIQA))
    pairs = json.dumps([inline("option", *item, " ") for item in WINOGRANDE])
    _write(raw / "winogrande" / "llm_adapters_winogrande_validation.json", pairs)
    _write(raw / "lambada" / "lambada_test.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in LAMBADA))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for part, rows in mmlu().items():
            for subject in sorted({row["subject"] for row in rows}):
                lines = [[row["question"], *row["choices"], "ABCD"[row["answer"]]] for row in rows if row["subject"] == subject]
                quoted = "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in line) + "\n" for line in lines).encode()
                info = tarfile.TarInfo(f"{part}/{subject}_{part}.csv")
                info.size = len(quoted)
                tar.addfile(info, io.BytesIO(quoted))
    _write(raw / "mmlu" / "mmlu_dev_test.tar.gz", archive.getvalue())
    _write(raw / "wikitext2" / "wiki.test.raw", WIKI)
    return raw


def hub_rows() -> dict[str, list[dict[str, Any]]]:
    """The same items as the hub's data sets name their columns, by file."""
    arc = [
        {
            "id": str(n),
            "question": question,
            "choices": {"text": options, "label": list("ABCDE"[: len(options)])},
            "answerKey": "ABCDE"[label],
        }
        for n, (question, options, label) in enumerate(ARC)
    ]
    hellaswag = []
    for begin, label, endings in HELLASWAG:
        activity, context = begin.split(": ")
        first, second = context.removesuffix(" he"), "he"
        # Brackets go, and the second part of the context starts with a capital: the made-up text
        # has neither.
        hellaswag.append({"activity_label": activity, "ctx_a": f"{first} [step]", "ctx_b": second, "endings": endings, "label": str(label)})
    winogrande = [
        {"sentence": sentence, "option1": first, "option2": second, "answer": str(label + 1)}
        for sentence, (first, second), label in WINOGRANDE
    ]
    return {
        "arc_easy/test": arc,
        "arc_challenge/test": arc,
        "hellaswag/validation": hellaswag,
        "piqa_full/validation": PIQA,
        "winogrande/validation": winogrande,
        "lambada/test": [{"text": text} for text in LAMBADA],
        **{f"mmlu/{part}": rows for part, rows in mmlu().items()},
    }


def write_hub(raw: Path) -> Path:
    for name, rows in hub_rows().items():
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), raw / f"{name}.parquet")
    return raw


def write_capability_tasks(folder: Path) -> Path:
    """The task files, accepting the record counts of this module."""
    write_tasks(folder)
    for name, count in COUNTS.items():
        file = task_file(folder, name)
        file.write_text(file.read_text(encoding="utf-8").replace("made_up: 0", f"made_up: {count}"), encoding="utf-8")
    return folder


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
