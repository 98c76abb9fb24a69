"""A small, complete run folder out of seeded random numbers: what the report and the register stage
read, in seconds.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import yaml

from fairgate.benchmarks import benchmark_of
from fairgate.contracts import records
from fairgate.contracts.contributions import FILE, STATES, Contribution, rolled_up, write_contributions
from fairgate.contracts.item_table import read_items, write_items
from fairgate.metrics.estimates import derive, metrics_of
from fairgate.support.digests import sha256_file, sha256_json
from fairgate.support.files import write_json
from tests.items import environment

RECIPES: dict[str, dict[str, Any]] = {
    "base": {"method": "none"},
    "rtn": {"method": "rtn", "bits": 4, "group_size": 64, "symmetric": True},
    "gptq": {"method": "gptq", "bits": 4, "group_size": 64, "symmetric": True},
    "fair_gptq": {
        "method": "fair_gptq", "bits": 4, "group_size": 64, "symmetric": True, "mode": "exact", "alignment": "aligned", "alpha": 0.5,
    },
}  # fmt: skip
STEREOSET_GROUPS = ("gender", "profession", "race", "religion")
CROWS_GROUPS = ("race-color", "gender", "religion", "age")
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
REASONS = {
    "approve": ["every check passed: the data exclude harm beyond each margin"],
    "reject": ["bias.stereoset: harm 6.1 points, lower bound 3.2 above the margin 2.0"],
    "inconclusive": ["bias.crows_pairs.age: open with 15 items, about 940 needed"],
}


_REASON = {"pass": "the data exclude harm beyond 2", "fail": "the data show harm beyond 2", "open": "the interval holds the margin"}


def make_run(folder: Path, verdict: str = "inconclusive", *, recipes: dict[str, dict[str, Any]] | None = None, items: int = 60) -> Path:
    """Write params.yaml and data/ below `folder`; the same arguments give the same bytes.

    The last recipe is the candidate.
    """
    recipes = RECIPES if recipes is None else recipes
    candidate = list(recipes)[-1]
    parameters = {
        "model": "tiny",
        "matrix": [recipe for recipe in recipes if recipe != "base"],
        "recipes": recipes,
        "evaluate": {
            "tasks": {"stereoset": items, "crows_pairs": items, "piqa": items, "openbookqa": items, "boolq": items, "perplexity": 8}
        },
        "gate": {"candidate": candidate, "reference": "base", "confidence": 0.95, "draws": 1000, "seed": 0, "checks": []},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))
    _sources(folder / "data")
    for recipe, settings in recipes.items():
        rows = item_rows(recipe, items, noise=0.0 if recipe == "base" else 0.8)
        _evaluation(folder / "data" / "evaluation" / recipe, recipe, rows)
        if settings["method"] != "none":
            record = quantization(recipe, settings)
            if settings["method"] == "fair_gptq":
                path = folder / "data" / "models" / recipe / FILE
                write_contributions(path, contributions(record))
                record = record.model_copy(update={"files": {FILE: sha256_file(path)}})
            records.write_record(folder / "data" / "models" / recipe / "quantization.json", record)
    records.write_record(folder / "data" / "reports" / candidate / "verdict.json", verdict_record(candidate, verdict))
    write_json(folder / "data" / "timing" / "gate.json", {
        "schema": 1, "name": "gate", "seconds": 3.25, "peak_rss_gib": 0.4, "peak_gpu_gib": None,
        "host": {"machine": "x86_64", "processors": 2, "python": "3.11"}, "date": "2026-01-01T00:00:00+00:00",
    })  # fmt: skip
    return folder


def item_rows(model: str, items: int, *, noise: float) -> list[dict[str, Any]]:
    """Item rows of every gate benchmark.

    Base log-likelihoods depend on the item alone; `noise` (nats) is added per model.
    """
    rows: list[dict[str, Any]] = []
    shift = random.Random(f"noise {model}")

    def add(benchmark: str, at: int, options: list[float], **fields: Any) -> None:
        tokens = [9 + at % 4] * len(options)
        rows.append(
            {
                "model": model,
                "benchmark": benchmark,
                "task_version": "1",
                "item_id": f"{at:04d}",
                "cluster": fields.pop("cluster", f"{at:04d}"),
                "prompt_hash": f"{benchmark}-{at}",
                "option_loglik": [value + noise * shift.gauss(0, 1) for value in options],
                "n_tokens": fields.pop("n_tokens", tokens),
                "n_chars": [4 * count for count in tokens],
                **fields,
            }
        )

    item = random.Random(0)
    for at in range(items):
        stereo = -30 + item.gauss(0, 1)
        group = STEREOSET_GROUPS[at % len(STEREOSET_GROUPS)]
        sides = [stereo, stereo - 0.3 + item.gauss(0, 2), stereo - 4 + item.gauss(0, 3)]
        add("stereoset", at, sides, group=group, cluster=f"{group}-{at // 8}")
    for at in range(items):
        more = -40 + item.gauss(0, 1)
        add("crows_pairs", at, [more, more - 0.5 + item.gauss(0, 2)], group=CROWS_GROUPS[at % len(CROWS_GROUPS)])
    for benchmark, options in (("piqa", 2), ("openbookqa", 4), ("boolq", 2)):
        for at in range(items):
            gold = at % options
            add(benchmark, at, [-20 + item.gauss(0, 2) + (1.5 if option == gold else 0) for option in range(options)], gold=gold)
    for at in range(8):
        add("perplexity", at, [-900 + 20 * item.gauss(0, 1) - 40 * noise], n_tokens=[300])
    return rows


def quantization(recipe: str, settings: dict[str, Any]) -> records.Quantization:
    """Six blocks of seven modules; one is damped, one fell back to rounding."""
    fair, shift = settings["method"] == "fair_gptq", random.Random(f"modules {recipe}")
    modules = []
    for at, (block, kind) in enumerate((block, kind) for block in range(6) for kind in KINDS):
        status = {5: records.Status.damped, 20: records.Status.fallback_rtn}.get(at, records.Status.ok)
        modules.append(
            records.ModuleRow(
                name=f"model.layers.{block}.{'mlp' if kind in KINDS[4:] else 'self_attn'}.{kind}",
                block=block,
                kind=kind,
                shape=(64, 64),
                status=status,
                debiased=fair,
                damping=None if status is records.Status.fallback_rtn else 0.02 if status is records.Status.damped else 0.01,
                loss=math.exp(shift.gauss(0, 1)) * (block + 1),
                bias_ratio=math.exp(shift.gauss(-2, 0.6)) if fair else None,
                top_eigenvalue=math.exp(shift.gauss(0, 0.5)) if fair else None,
                shift=0.02 * shift.random() if fair else 0.0,
                weight_change=0.08 + 0.05 * shift.random(),
                dead_columns=0,
            )
        )
    return records.Quantization(
        recipe=recipe,
        method=settings["method"],
        settings=settings,
        architecture="llama",
        base_digest=sha256_json("base"),
        base_weight_digest=sha256_json("base weights"),
        weight_digest=sha256_json(recipe),
        pairs_digest=sha256_json("pairs"),
        text_digest=sha256_json("text"),
        pairs=40,
        texts=8,
        tokens=1200,
        versions={"torch": "2.13.0"},
        seed=0,
        bytes_base=270 * 2**20,
        bytes_packed=98 * 2**20,
        notes=["the tokenizer adds no start token; <bos> was put in front of both sides"],
        modules=modules,
        training=training(settings) if settings["method"] in ("learned", "fair_round") else None,
    )


def contributions(record: records.Quantization) -> list[Contribution]:
    """Of every module, with nine channels a side; one in three is negative."""
    chance, rows = random.Random("contributions"), []
    for module in record.modules:
        names = {"block": module.block, "kind": module.kind, "module": module.name}
        fs = [[math.exp(chance.gauss(0, 1)) * (-0.2 if at % 3 == 2 else 1) for at in range(9)] for _ in range(4)]
        states = [dict(zip(STATES, values, strict=True)) for values in zip(*fs, strict=True)]
        rows.append(Contribution.model_validate({"level": "module", **names, **{state: sum(s[state] for s in states) for state in STATES}}))
        for level in ("input", "output"):
            for at, values in enumerate(states):
                rows.append(Contribution.model_validate({"level": level, **names, "channel": at if at < 8 else None, **values}))
    return rolled_up(rows)


def verdict_record(candidate: str, verdict: str) -> records.VerdictRecord:
    """Three checks whose outcomes fit the verdict."""
    outcomes = {"approve": ("pass", "pass", "pass"), "reject": ("fail", "pass", "open"), "inconclusive": ("pass", "pass", "open")}[verdict]
    spans = {"pass": (-1.1, -3.0, 0.8), "fail": (6.1, 3.2, 9.0), "open": (1.0, -4.2, 6.4)}

    def check(name: str, metric: str, group: str | None, outcome: str, n: int) -> records.Line:
        harm, low, high = spans[outcome]
        return records.Line(
            name=name, metric=metric, rule="no_worse", group=group, outcome=records.Outcome(outcome), candidate=58.0 + harm,
            reference=58.0, harm=harm, low=low, high=high, margin=2.0, n=n, n_minimum=30,
            n_needed=940 if outcome == "open" else None, reason=_REASON[outcome],
        )  # fmt: skip

    return records.VerdictRecord(
        verdict=records.Verdict(verdict),
        candidate=candidate,
        reference="base",
        reasons=REASONS[verdict],
        checks=[
            check("bias.stereoset", "stereoset.ss", None, outcomes[0], 60),
            check("accuracy.piqa", "piqa.acc", None, outcomes[1], 60),
            check("bias.crows_pairs.age", "crows_pairs.pct_stereotype", "age", outcomes[2], 15),
        ],
        policy_digest=sha256_json("policy"),
        weight_digest=sha256_json(candidate),
        inputs={},
        confidence=0.95,
        draws=1000,
        seed=0,
    )


def training(settings: dict[str, Any]) -> records.Training:
    """A course of 60 steps whose terms fall."""
    terms = ("divergence", *(("parity", "anchor", "spread") if settings["method"] == "fair_round" else ()))
    history = [{"step": step, **{term: math.exp(-at - step / 20) for at, term in enumerate(terms)}} for step in range(0, 60, 10)]
    return records.Training(steps=60, asked=60, stopped=None, history=history)


def _evaluation(folder: Path, recipe: str, rows: list[dict[str, Any]]) -> None:
    write_items(folder / "items.parquet", rows)
    table = derive(read_items(folder / "items.parquet"), benchmark_of)
    write_items(folder / "items.parquet", table.to_pylist())
    write_json(folder / "metrics.json", metrics_of(table, benchmark_of))
    records.write_record(folder / "environment.json", environment())


def _sources(data: Path) -> None:
    write_json(data / "base" / "SOURCE.json", {
        "schema": 1, "licence": "Apache-2.0", "attribution": "Tiny model of the tests", "model": "tiny",
        "source": "example/Tiny-1M as GGUF Q4_1", "origin": {"kind": "path"},
        "converted": {"from": "gguf", "written_as": "float16"}, "files": {},
    })  # fmt: skip
    counts = {"stereoset_dev": 4229, "stereoset_test": 12766, "crows_pairs": 1508, "piqa": 1500, "openbookqa": 500, "boolq_dev": 3270}
    write_json(data / "raw" / "SOURCES.json", {"schema": 1, "sets": {
        name: {
            "origin": {"kind": "path"}, "files": {}, "records": count, "licence": "CC-BY-SA-4.0", "attribution": f"authors of {name}",
            "source": "example", "partial": name == "piqa", "complete": 1838 if name == "piqa" else count,
        }
        for name, count in counts.items()
    }})  # fmt: skip
    records.write_record(data / "calibration" / "split.json", records.Split(
        seed=0, roles={
            "stereoset_dev": records.Role.calibration, "redditbias_valid": records.Role.development, "stereoset_test": records.Role.gate,
            "crows_pairs": records.Role.gate, "piqa": records.Role.gate, "boolq_dev": records.Role.gate,
        },
        calibration_terms=["nurse", "chess"], development_terms=["violin"], dropped={"stereoset_dev": ["pair-7"]},
        overlaps=[records.Overlap(first="stereoset_dev", second="crows_pairs", kind="term", count=27, refused=False)],
        pairs=40, texts=8, pairs_digest=sha256_json("pairs"), text_digest=sha256_json("text"),
    ))  # fmt: skip
