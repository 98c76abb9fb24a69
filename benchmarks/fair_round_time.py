"""How long learned fair rounding takes, from the folder to the packed checkpoint.

    python -m benchmarks.fair_round_time --parts base,7b --folder /dev/shm --data data \\
        --recipe fair_round --steps 100

`base`: the model itself, with the recipe's own steps. `7b`: a Llama of 7B shape with random
weights; of `--steps` steps the later ones are timed, and the time of the recipe's own number of
steps is extrapolated from them.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

from transformers import AutoTokenizer

from benchmarks.random_llama import make_model
from benchmarks.records import Records, peak_gib, timed
from fairgate.contracts.records import Quantization
from fairgate.support.errors import FairgateError
from fairgate.support.log import log
from fairgate.support.params import load
from stages.quantize.methods.learned import Learned
from stages.quantize.settings import RunSettings, read_recipe
from stages.quantize.stage import quantize


class Clock(logging.Handler):
    """When a step of the history was reached, by its number."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[int, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("step %d") and isinstance(record.args, tuple):
            self.at[int(str(record.args[0]))] = record.created


def measured(recipe: Learned, run: RunSettings, base: Path, data: Path, folder: Path) -> tuple[float, Quantization]:
    """Seconds of one run, and its record."""
    out = folder / "out"
    seconds, record = timed(lambda: quantize("timed", recipe, run, base, data / "calibration", out, folder / "work"))
    shutil.rmtree(out)
    if record.training is None or record.training.stopped:
        raise FairgateError(f"{record.training}", where=str(base), remedy="no time can be told from a run that stopped")
    return seconds, record


def of_runs(seconds: list[float]) -> dict[str, float]:
    """Fastest and slowest run, all of one seed."""
    return {"low": round(min(seconds), 3), "high": round(max(seconds), 3), "seeds": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="base,7b")
    parser.add_argument("--folder", type=Path, required=True, help="for the random model and the checkpoints")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with base and calibration")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--recipe", default="fair_round")
    parser.add_argument("--runs", type=int, default=3, help="of the base")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--mlp", type=int, default=11008)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fair_rounding.json"))
    arguments = parser.parse_args()
    recipe = read_recipe(arguments.recipe, arguments.params)
    if not isinstance(recipe, Learned):
        raise FairgateError(f"method {recipe.method!r} learns nothing", where=arguments.recipe, remedy="name a recipe of learned rounding")
    run = load(RunSettings, "quantize", arguments.params).model_copy(update={"diagnostics": False, "alpha_zero": False})
    records = Records(arguments.out, "fair_round_time")
    if "base" in arguments.parts.split(","):
        seconds = [measured(recipe, run, arguments.data / "base", arguments.data, arguments.folder)[0] for _ in range(arguments.runs)]
        more = {"steps": recipe.steps, "peak_gib": peak_gib(), "settings": recipe.model_dump(mode="json")}
        records.add("time_smollm2_s", seconds, "s", target=60, **of_runs(seconds), **more)
    if "7b" in arguments.parts.split(","):
        tokenizer = AutoTokenizer.from_pretrained(arguments.data / "base")
        base = make_model(arguments.folder / "base", arguments.layers, arguments.hidden, arguments.mlp, tokenizer)
        # Random weights learn nothing: steps too short to matter keep them from diverging, which
        # would end the run. Its state is kept once.
        changes = {"steps": arguments.steps, "keep": arguments.steps // 2, "recompute": True, "rate": 1e-6, "clip_rate": 1e-6}
        clock = Clock()
        log.addHandler(clock)
        log.setLevel(logging.INFO)
        taken = recipe.model_copy(update=changes)
        seconds = [measured(taken, run, base, arguments.data, arguments.folder)[0]]
        shutil.rmtree(base)
        first, last = min(clock.at), max(clock.at)
        # The state that is kept on the way is in it
        step = (clock.at[last] - clock.at[first]) / (last - first)
        whole = [seconds[0] + step * (recipe.steps - arguments.steps)]
        records.add(
            "time_7b_s",
            whole,
            "s",
            target=1200,
            **of_runs(whole),
            extrapolated=True,
            steps=recipe.steps,
            measured={"steps": arguments.steps, "seconds": round(seconds[0], 1)},
            step_s=round(step, 3),
            peak_gib=peak_gib(),
            shape=f"Llama, {arguments.layers} blocks, hidden {arguments.hidden}, MLP {arguments.mlp}, vocabulary of the base",
            settings=taken.model_dump(mode="json"),
        )


if __name__ == "__main__":
    main()
