"""A small experiment on a tiny model: its inputs, and a declaration with two cells a phase."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.fair_rounding import Place
from benchmarks.fair_rounding_cells import Declaration
from stages.common.files import write_json
from stages.common.records import Pair, Text, write_records
from tests.stages.evaluate.raw import PASSAGES, write_raw, write_split, write_tasks
from tests.tiny import SENTENCES, make_tiny_llama

TERMS = {"gardener": "profession", "pilot": "profession", "harbour": "race", "engineer": "gender"}
DEVELOPMENT = ("stereoset_dev", "redditbias_valid", "winobias_dev", "perplexity_dev")
GATE = ("stereoset", "crows_pairs", "piqa", "perplexity")
RUN = {"seed": 0, "batch_tokens": 512, "diagnostics": False, "alpha_zero": False}


def pairs(prefix: str = "", each: int = 3) -> list[Pair]:
    return [
        Pair(
            pair_id=f"{prefix}{term}{n}", group=group, target=term, stereotype=f"{prefix}The {term} waters {n} roses.",
            anti_stereotype=f"{prefix}The {term} reads {n} maps.", unrelated=f"{prefix}The {term} turns {n} of salt.",
        )
        for term, group in TERMS.items() for n in range(each)
    ]  # fmt: skip


def write_calibration(folder: Path) -> Path:
    """The calibration folder of contract: pairs with and without a context, general text, text for training."""
    write_split(folder / "split.json")
    write_records(folder / "pairs.jsonl", pairs())
    write_records(folder / "context_pairs.jsonl", pairs("It is a dry morning. "))
    texts = [Text(text_id=str(n), text=f"{' '.join(SENTENCES)} {PASSAGES[1]} This is text {n}.") for n in range(2)]
    write_records(folder / "text.jsonl", texts)
    write_records(folder / "training.jsonl", texts)
    return folder


def make_place(folder: Path) -> Place:
    """Everything an experiment reads; results go to `folder / "out"`."""
    write_raw(folder / "raw")
    write_calibration(folder / "calibration")
    return Place(
        make_tiny_llama(folder / "base", width=64),
        folder / "calibration",
        folder / "raw",
        folder / "out",
        folder / "text.txt",
        device="cpu",
        run=RUN,
        tasks=write_tasks(folder / "tasks"),
    )


def declaration(**changes: Any) -> Declaration:
    values: dict[str, Any] = {
        "defaults": {"bits": 4, "group_size": 32, "symmetric": True},
        "evaluation": {
            "search": {"role": "development", "tasks": dict.fromkeys(DEVELOPMENT)},
            "final": {"role": "gate", "tasks": dict.fromkeys(GATE)},
        },
        "types": ["profession"],
        "rules": {"rounded": {"reference": "base", "perplexity_ratio": 9.0, "lms_drop": 100.0}},
        "search": [
            {"name": "base", "recipe": {"method": "none"}},
            {"name": "rounded", "recipe": {"method": "rtn"}, "variants": {"b8": {"bits": 8}, "b4": {}}, "seeds": [0, 1]},
        ],
        "final": [
            {"name": "base", "recipe": {"method": "none"}},
            {"name": "rounded", "chosen": "rounded", "seeds": [0, 1]},
            {"name": "gptq", "recipe": {"method": "gptq"}, "calibration": "bootstrap"},
        ],
        "table": {
            "candidate": "rounded", "learned": "rounded", "rivals": ["gptq"], "zero_shot": ["piqa.acc"], "perplexity": "perplexity.ppl",
            "plot": ["base", "rounded", "gptq"],
        },
    }  # fmt: skip
    return Declaration.model_validate(values | changes)


def write_result(out: Path, cell: Any, metrics: dict[str, float], **more: Any) -> None:
    """A result as a run writes it, with made-up metrics."""
    write_json(cell.folder(out) / "result.json", {"settings": cell.settings, "inputs": {}, "metrics": metrics, **more})


def failure(out: Path, name: str) -> str:
    return str(json.loads((out / "final" / name / "failure.json").read_text())["reason"])
