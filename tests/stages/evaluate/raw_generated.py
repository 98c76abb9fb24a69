"""Files of the benchmarks with generated answers, in their real formats with made-up content."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

BBQ_FILES = ("Gender_identity", "Religion")


def write_bbq(folder: Path) -> Path:
    """Two questions a category; of Gender_identity one item has no stereotyped answer, and one stands twice in the table."""
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
