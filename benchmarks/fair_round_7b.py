"""How long learned fair rounding takes on a model of 7B shape with random weights, from the folder to the packed checkpoint.

    python -m benchmarks.fair_round_7b --folder /dev/shm --data data --recipe fair_round --steps 100

Two runs of few and of `--steps` steps; a step is what their difference says, and the time of the recipe's own number of steps is
extrapolated from the longer one.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer

from benchmarks.random_llama import make_model
from benchmarks.records import Records, timed
from stages.common.errors import FairgateError
from stages.common.params import load
from stages.quantize.settings import Learned, Run, read_recipe
from stages.quantize.stage import quantize

FEW = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the model and the checkpoints")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with base (its tokenizer is taken) and calibration")
    parser.add_argument("--recipe", default="fair_round")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--mlp", type=int, default=11008)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fair_rounding.json"))
    arguments = parser.parse_args()
    recipe = read_recipe(arguments.recipe, arguments.params)
    if not isinstance(recipe, Learned):
        raise FairgateError(f"method {recipe.method!r} learns nothing", where=arguments.recipe, remedy="name a recipe of learned rounding")
    tokenizer = AutoTokenizer.from_pretrained(arguments.data / "base")
    base = make_model(arguments.folder / "base", arguments.layers, arguments.hidden, arguments.mlp, tokenizer)
    run = load(Run, "quantize", arguments.params).model_copy(update={"diagnostics": False, "alpha_zero": False})
    seconds: dict[int, float] = {}
    for steps in (FEW, arguments.steps):
        # Random weights learn nothing: steps too short to matter keep them from diverging, which would end the run. Its state is kept once.
        changes = {"steps": steps, "keep": max(FEW + 1, arguments.steps // 2), "recompute": True, "rate": 1e-6, "clip_rate": 1e-6}
        own, out, work = recipe.model_copy(update=changes), arguments.folder / "out", arguments.folder / "work"
        seconds[steps], record = timed(lambda: quantize("7b", own, run, base, arguments.data / "calibration", out, work))  # noqa: B023
        if record.training is None or record.training.steps < steps:
            raise FairgateError(f"{record.training}", where=f"{steps} steps", remedy="no time can be told from a run that stopped")
        print(f"{steps} steps: {seconds[steps]:.1f} s", flush=True)
        shutil.rmtree(out)
    shutil.rmtree(base)
    step = (seconds[arguments.steps] - seconds[FEW]) / (arguments.steps - FEW)
    peak = torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else None
    records = Records(
        arguments.out, "fair_round_7b", shape=f"Llama, {arguments.layers} blocks, hidden {arguments.hidden}, MLP {arguments.mlp}"
    )
    records.add(
        "time_7b_s",
        [seconds[arguments.steps] + step * (recipe.steps - arguments.steps)],
        "s",
        target=1200,
        extrapolated=True,
        steps=recipe.steps,
        measured_s={str(steps): round(found, 1) for steps, found in seconds.items()},
        step_s=round(step, 3),
        peak_gib=peak and round(peak, 1),
        settings=recipe.model_dump(mode="json"),
    )


if __name__ == "__main__":
    main()
