"""Choose alpha on the development sets, by a rule declared in choose_alpha.yaml.

    python -m experiments.choose_alpha

Run it after `dvc repro calibrate`; it takes minutes on a GPU.

Writes benchmarks/results/choose_alpha.json: one measurement a recipe, with its development metrics
and whether the rule chose it. A second run goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.records import machine, measurement, merge, read
from experiments.rule import Rule, distance
from fairgate.contracts.recipes import is_unquantized
from fairgate.contracts.records import Role
from fairgate.support.devices import pick_device
from fairgate.support.params import load, parse, pick, read_params
from fairgate.support.strict_yaml import read_yaml
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.selection import Selection
from stages.evaluate.settings import Evaluate
from stages.evaluate.stage import Subject, evaluate
from stages.quantize.methods.base import GridRecipe
from stages.quantize.settings import RunSettings, parse_recipe
from stages.quantize.stage import quantize

HERE = Path(__file__).parent
SHOWN = ("stereoset_dev.ss", "redditbias_valid.ss", "winobias_dev.historical_bias", "stereoset_dev.lms", "perplexity_dev.ppl")


def measure(name: str, recipe: dict[str, Any], data: Path, device: str) -> dict[str, Any]:
    """Quantize by one recipe (none: the base) and evaluate it on the development sets."""
    run = load(RunSettings, "quantize").model_copy(update={"device": device})
    on_gpu = pick_device(device, parameter="--device").type == "cuda"
    batch = {"batch_tokens": 32768} if on_gpu else {}
    settings = load(Evaluate, "evaluate").model_copy(update={"device": device, "tasks": {}, **batch})
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = data / "base"
        if not is_unquantized(recipe["method"]):
            folder = Path(scratch) / "model"
            quantize(
                name,
                cast(GridRecipe, parse_recipe(recipe, where=f"choose_alpha.yaml:{name}")),
                run,
                data / "base",
                data / "calibration",
                folder,
                Path(scratch) / "work",
            )
        quantized = time.monotonic()
        catalogue = Catalogue(data / "raw", data / "calibration" / "split.json")
        metrics = evaluate(Subject(name, folder), Selection(catalogue, Role.development), settings, Path(scratch) / "evaluation")
    seconds = {"quantize_s": round(quantized - started, 1), "evaluate_s": round(time.monotonic() - quantized, 1)}
    return {"recipe": name, "settings": recipe, "distance": distance(metrics), "metrics": metrics, **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--grid", type=Path, default=HERE / "choose_alpha.yaml")
    parser.add_argument("--out", type=Path, default=HERE.parent / "benchmarks" / "results" / "choose_alpha.json")
    arguments = parser.parse_args()
    model = pick(read_params(), "model")
    grid = read_yaml(arguments.grid)
    recipes = {**grid["references"]}
    recipes |= {name: {**grid["defaults"], **changes} for part in ("candidates", "others") for name, changes in grid[part].items()}
    done = [{"recipe": row.recipe, "distance": row.value, **(row.details or {})} for row in read(arguments.out)]
    rows = [row for row in done if recipes.get(row["recipe"]) == row["settings"]]
    for name in [name for name in recipes if name not in {row["recipe"] for row in rows}]:
        row = measure(name, recipes[name], arguments.data, arguments.device)
        rows.append(row)
        _write(arguments.out, rows, [], None, model)
        shown = "  ".join(f"{key.split('.')[0][:9]}.{key.split('.')[1][:6]} {row['metrics'][key]:8.3f}" for key in SHOWN)
        print(f"{name:<16} distance {row['distance']:6.2f}  {shown}  {row['quantize_s']:.0f}+{row['evaluate_s']:.0f} s", flush=True)
    by_name = {row["recipe"]: row for row in rows}
    rule = parse(Rule, grid["rule"], where=f"{arguments.grid}:rule")
    kept = {row["recipe"]: {"perplexity": row["metrics"]["perplexity_dev.ppl"], "lms": row["metrics"]["stereoset_dev.lms"]} for row in rows}
    reference = pick(kept, rule.reference or "", kind="recipe", where=str(arguments.grid))
    allowed = [name for name in grid["candidates"] if rule.allows(kept[name], reference)]
    chosen = min(allowed, key=lambda name: by_name[name]["distance"], default=None)
    print(f"eligible: {', '.join(allowed) or 'none'}; chosen: {chosen}")
    _write(arguments.out, rows, allowed, chosen, model)


def _write(path: Path, rows: list[dict[str, Any]], eligible: list[str], chosen: str | None, model: str) -> None:
    common = {
        "name": "development_distance",
        "model": model,
        "unit": "points from neutral, mean of three development sets",
        "command": "python -m experiments.choose_alpha",
        "date": datetime.now(UTC).date(),
        "machine": machine(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    merge(
        path,
        [
            measurement(
                value=row["distance"],
                runs=[row["distance"]],
                **{key: row[key] for key in ("recipe", "settings", "metrics", "quantize_s", "evaluate_s")},
                eligible=row["recipe"] in eligible,
                chosen=row["recipe"] == chosen,
                **common,
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
