"""A small experiment on a tiny model: its inputs, and a declaration with two cells a phase."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from experiments.fair_rounding.cells import Cell, Declaration
from experiments.fair_rounding.measure import Place, keep
from fairgate.benchmarks import benchmark_of
from fairgate.contracts.records import Pair, Text, write_records
from fairgate.metrics.estimates import derive
from fairgate.support.files import write_json
from tests.items import row, table
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
    """The calibration folder of contract: pairs with and without a context, general text, text for
    training.
    """
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
            "sweeps_against": "gptq", "plot": {"all": ["base", "rounded", "gptq"]},
        },
    }  # fmt: skip
    return Declaration.model_validate(values | changes)


def write_result(out: Path, cell: Cell, metrics: dict[str, float], **more: Any) -> None:
    """A result as a run writes it, with made-up metrics."""
    write_json(cell.folder(out) / "result.json", {"settings": cell.settings, "inputs": {}, "metrics": metrics, **more})


def failure(out: Path, name: str) -> str:
    return str(json.loads((out / "final" / name / "failure.json").read_text())["reason"])


def made_up(cell: Cell, *, items: int = 48) -> pa.Table:
    """An item table of every likelihood task of the final phase; cells differ in their
    log-likelihoods alone.
    """
    drawn, own = np.random.default_rng(0), np.random.default_rng([cell.seed, *cell.label.encode()])

    def scores(*options: float) -> list[float]:
        return [float(x + drawn.normal() + 0.3 * own.normal()) for x in options]

    rows = []
    for i in range(items):
        group = ("gender", "profession", "race")[i // 4 % 3]
        rows.append(row("stereoset", i, scores(-3.8, -4, -6), cluster=f"term {i // 4}", group=group))
        rows.append(row("crows_pairs", i, scores(-8.9, -9), group=("age", "race-color")[i % 2]))
        rows.append(row("winogender", i, scores(-2, -2.5), gold=i % 2, group=("male", "female")[i // 2 % 2], subgroup="gotcha"))
        rows.append(row("bbq_ll", i, scores(-3, -3, -3), gold=2, group="Religion", subgroup=("ambig", "disambig")[i % 2]))
        rows.append(row("redditbias", i, scores(-9, -9), group="religion", subgroup="religion-jews-christians"))
        cell_of = ("pro_male", "pro_female", "anti_male", "anti_female")[i % 4]
        rows.append(row("winobias_ll", i, scores(-2, -2.2), gold=0, group="type1", subgroup=cell_of))
        rows.append(row("cooccurrence", i, scores(-5, -5, -5, -5), gold=0))
        for text in ("wikitext2", "perplexity"):
            rows.append(row(text, i, scores(-300), n_tokens=[100]))
        for task in ("piqa", "arc_easy", "openbookqa", "boolq", "hellaswag"):
            rows.append(row(task, i, scores(-2, -3), gold=0))
    return derive(table(*rows), benchmark_of)


def write_cell(out: Path, cell: Cell, items: pa.Table | None = None, **more: Any) -> None:
    """A finished cell, without a model; its items are made up unless given."""
    name = keep(made_up(cell) if items is None else items, cell, out)
    measured = {
        "quantize_s": 20.0 + cell.seed,
        "evaluate_s": 10.0,
        "peak_gib": [9.5, 4.25],
        "machine": "a GPU",
        "torch": "2.0",
        "items": name,
    }
    write_result(out, cell, {}, **(measured | more))
