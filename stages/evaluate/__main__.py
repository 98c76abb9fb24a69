"""`python -m stages.evaluate --recipe NAME`: score one model and write data/evaluation/NAME/."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairgate.contracts.recipes import is_unquantized, model_folder
from fairgate.contracts.records import Role
from fairgate.support import cli
from fairgate.support.errors import FairgateError
from fairgate.support.names import check_name
from fairgate.support.params import load, pick, read_params
from stages.evaluate.threads import announced, limit_threads

DATA, WORK = Path("data"), Path(".fairgate/evaluate")


def main(arguments: argparse.Namespace) -> None:
    for kind, name in [("recipe", arguments.recipe), *(("task", task) for task in arguments.task)]:
        check_name(kind, name, where=f"--{kind}")
    recipes = pick(read_params(arguments.params), "recipes", where=arguments.params)
    pick(recipes, arguments.recipe, kind="recipe", where=f"{arguments.params}:recipes")
    with announced() as running:
        _evaluate(arguments, recipes, running)


def _evaluate(arguments: argparse.Namespace, recipes: dict[str, Any], running: Callable[[], int]) -> None:
    # Late, so that a misspelt recipe is told at once: the libraries take seconds to import.
    from fairgate.support.devices import pick_device
    from stages.evaluate.catalogue import Catalogue
    from stages.evaluate.journal import WHOLE, Shard
    from stages.evaluate.repeat import evaluate_twice
    from stages.evaluate.selection import Selection
    from stages.evaluate.session import Workspace
    from stages.evaluate.settings import Evaluate
    from stages.evaluate.stage import Subject, evaluate

    settings = load(Evaluate, "evaluate", arguments.params)
    role = Role(arguments.role or settings.role)
    # Only the gate's tables feed the pipeline; a development run never replaces one.
    place = {Role.gate: "evaluation", Role.development: "development", Role.calibration: "study"}[role]
    catalogue = Catalogue(DATA / "raw", DATA / "calibration" / "split.json")
    if any(catalogue.is_generated(task) for task in arguments.task):
        place = "smoke" if arguments.smoke else "generated"
    if arguments.all:
        settings, place = settings.model_copy(update={"tasks": {}}), f"{place}-all"
    shard = Shard.parse(arguments.shard) if arguments.shard else WHOLE
    # The table of the noise floor belongs to the unquantized model.
    twice = arguments.repeat or (settings.repeat and is_unquantized(recipes[arguments.recipe].get("method")) and role == Role.gate)
    if arguments.repeat and arguments.shard:
        raise FairgateError("cannot be given together", where="--repeat, --shard", remedy="score the parts first, then --repeat alone")
    # All parts of a task and the run that puts them together must have the same number of threads.
    if shard == WHOLE and pick_device(settings.device, parameter="evaluate.device").type == "cpu":
        limit_threads(running())
    run = evaluate_twice if twice and shard == WHOLE else evaluate
    run(
        Subject(arguments.recipe, model_folder(recipes, arguments.recipe, DATA)),
        Selection(catalogue, role, arguments.task, arguments.smoke),
        settings,
        arguments.out or DATA / place / arguments.recipe,
        Workspace(WORK / place / arguments.recipe, shard),
    )


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # nothing is forked here
    gc.set_threshold(50_000, 20, 100)  # millions of texts and tokens are alive: looking for garbage among them took a fifth of the time
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate", description=__doc__)
    parser.add_argument("--recipe", required=True, help="recipe of params.yaml")
    parser.add_argument("--role", choices=[role.value for role in Role], help="instead of evaluate.role")
    parser.add_argument("--task", action="append", default=[], help="only this task; may be repeated")
    parser.add_argument(
        "--all", action="store_true", help="every task of the role whose data are there, whole, into data/<role's folder>-all"
    )
    parser.add_argument("--shard", help="score part I of N, as I/N, and keep it; the run without --shard puts all parts together")
    parser.add_argument("--repeat", action="store_true", help="score twice, with another batch size and dtype, and write noise.json")
    parser.add_argument("--smoke", action="store_true", help="tasks with generated text: 20 items, a stand-in classifier, into data/smoke")
    parser.add_argument("--out", type=Path, help="output folder")
    sys.exit(cli.run("evaluate-{recipe}", main, parser))
