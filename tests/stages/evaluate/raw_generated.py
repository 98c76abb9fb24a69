"""Files of the benchmarks with generated answers, in their real formats with made-up content."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

BBQ_FILES = ("Gender_identity", "Race_ethnicity", "Religion")


def write_bbq(folder: Path) -> Path:
    """Two questions a category; of Gender_identity one item has no stereotyped answer, and one
    stands twice in the table.
    """
    table: list[dict[str, Any]] = []
    for category in BBQ_FILES:
        lines = []
        for number in range(4):
            ambiguous = number % 2 == 0
            answers = [("The pilot", "M"), ("Not known", "unknown"), ("The cook", "F")]
            line = {
                "example_id": number,
                "question_index": str(number // 2),
                "question_polarity": "neg",
                "context_condition": "ambig" if ambiguous else "disambig",
                "category": category,
                "answer_info": {f"ans{k}": list(answer) for k, answer in enumerate(answers)},
                "additional_metadata": {"stereotyped_groups": ["F"]},
                "context": f"A pilot met cook {number}.",
                "question": "Who was late?",
                **{f"ans{k}": text for k, (text, _) in enumerate(answers)},
                "label": 1 if ambiguous else 0,
            }
            lines.append(line)
            row = {"category": category, "question_index": str(number // 2), "example_id": number, "target_loc": 2}
            if category == "Gender_identity":
                row["target_loc"] = "NA" if number == 3 else 2
                table += [row] * (2 if number == 0 else 1)
            else:
                table.append(row)
        write_lines(folder / "bbq" / f"{category}.jsonl", lines)
    write_table(folder / "bbq_metadata" / "additional_metadata.csv", table)
    return folder


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_generated(folder: Path) -> Path:
    """Every file that the tasks with generated text read."""
    write_bbq(folder)
    for kind in ("type1", "type2"):
        for side, (first, second) in {"pro": ("he", "her"), "anti": ("she", "his")}.items():
            text = f"1 [The pilot] met the cook because [{first}] had a map.\n2 The pilot met [the cook] because [{second}] map was old.\n"
            path = folder / "winobias_test" / f"{side}_stereotyped_{kind}.txt.test"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    scenarios = [
        {"": n, "decision_question_id": n // 2, "prompt": "Who gets the map? ", "bias_type": ["gender", "race"][n % 2]} for n in range(4)
    ]
    write_table(folder / "discrimevalgen" / "discrim_eval_gen.csv", scenarios)
    persons = [
        {"input": f"description:  A pilot, sex {sex}, age {n}.\npredict the income:", "label": ["no", "yes"][n % 2]}
        for n, sex in enumerate(["Male", "Female", "Female", "Male"])
    ]
    write_lines(folder / "dt_fairness" / "adult_0_200_test_base_rate_0.0.jsonl", persons)
    write_lines(folder / "dt_toxicity" / "toxic_gpt4.jsonl", [{"prompt": {"text": f"The cook number {n} is"}} for n in range(4)])
    write_mmlu(folder / "mmlu" / "mmlu_dev_test.tar.gz")
    groups = {
        "gender": ["American_actors", "American_actresses"],
        "race": ["Asian_Americans", "African_Americans", "European_Americans", "Hispanic_and_Latino_Americans"],
        "religious_ideology": ["judaism", "christianity", "islam", "buddhism"],
    }
    for name, subgroups in groups.items():
        prompts = {subgroup: {"Somebody": [f"A {subgroup} person is", ""], "Else": ["It is"]} for subgroup in subgroups}
        path = folder / "bold" / f"{name}_prompt.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(prompts), encoding="utf-8")
    return folder


def write_mmlu(path: Path) -> None:
    """One subject: five worked questions, two asked ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for part, count in {"dev": 5, "test": 2}.items():
            text = "".join(f"{part} question {n}?,one,two,three,four,{'ABCD'[n % 4]}\n" for n in range(count)).encode()
            member = tarfile.TarInfo(f"{part}/art_{part}.csv")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))


# How many records write_generated makes, by task.
GENERATED = {
    "winobias": 8, "bbq": 12, "discrimevalgen": 4, "dt_fairness": 4, "mmlu": 2, "dt_toxicity": 4, "bold_toxicity": 24, "bold_sentiment": 24,
}  # fmt: skip
