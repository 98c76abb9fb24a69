"""Check params.yaml and the registry before the first stage, instead of minutes later."""

from __future__ import annotations

from pathlib import Path

from fairgate.benchmarks.descriptions import descriptions
from fairgate.support.errors import FairgateError, UnknownName
from fairgate.support.params import Section, load, read_params
from fairgate.support.strict_yaml import read_yaml
from stages.register.environment import require_reachable, tracking_uri


def sections() -> dict[str, type[Section]]:
    """The sections that one stage reads, and their models: all but `recipes` and `gate`."""
    from stages.calibrate.stage import Settings
    from stages.evaluate.settings import Evaluate
    from stages.quantize.settings import RunSettings
    from stages.register.stage import RegisterParams

    return {"calibrate": Settings, "quantize": RunSettings, "evaluate": Evaluate, "register": RegisterParams}


def check_params(root: Path) -> None:
    """Read every section as its stage will read it.

    A section that is absent or empty is left to the stage that needs it.

    Raises:
        FairgateError: the project lies where DVC cannot work; params.yaml or dvc.yaml is
            not read alike by every reader; a recipe, method, task, metric or parameter has an
            unknown name; a value is out of range; or the gate is about a recipe that the matrix
            leaves out.
    """
    from fairgate.decision.policy import read_policy
    from stages.quantize.settings import read_recipe

    path = root / "params.yaml"
    params = read_params(path)
    if (pipeline := root / "dvc.yaml").is_file():
        read_yaml(pipeline)  # for its refusals: DVC tells neither line nor key
    _check_folder(root)
    for key, model in sections().items():
        if key in params:
            load(model, key, path)
    recipes = params.get("recipes")
    matrix = params.get("matrix", [])
    if not isinstance(matrix, list):
        raise FairgateError(f"not a list of recipe names (got {matrix!r})", where=f"{path}:matrix", remedy="write e.g. [rtn, gptq]")
    for name in matrix if recipes else []:
        read_recipe(name, path)
    for name in params.get("evaluate", {}).get("tasks", {}):
        if name not in descriptions():
            raise UnknownName.of("task", name, descriptions(), where=f"{path}:evaluate.tasks")
    gate = params.get("gate", {})
    if not isinstance(gate, dict) or gate.get("checks"):
        policy = read_policy(path)
        # The gate compares measured models, and its candidate is packed: `base` has no checkpoint.
        for key, recipe, made in (("candidate", policy.candidate, matrix), ("reference", policy.reference, ["base", *matrix])):
            if recipes and recipe not in recipes:
                raise UnknownName.of("recipe", recipe, recipes, where=f"{path}:gate")
            if matrix and recipe not in made:
                add = "" if recipe == "base" else f"add {recipe!r} to `matrix`, or "
                raise FairgateError(
                    f"{recipe!r} is not made, so it cannot be judged (matrix: {matrix})",
                    where=f"{path}:gate.{key}",
                    remedy=f"{add}name one of {', '.join(made)}",
                )


def check_registry(root: Path) -> None:
    """Require that the registry can be used, before the hours of work that it is to record.

    A server is asked; a SQLite file is only looked at, because MLflow takes seconds to import.

    Raises:
        FairgateError: what is wrong with MLFLOW_TRACKING_URI, without any part of its password.
    """
    require_reachable(uri := tracking_uri(root))
    if not uri.startswith("sqlite:"):
        from stages.register.registry import Registry

        Registry(root)


def _check_folder(root: Path) -> None:
    """Require that DVC can work in the project's folder."""
    if marks := set("{}").intersection(str(root.resolve())):
        what = f"DVC cannot work in a folder with {' and '.join(sorted(marks))} in its path"
        raise FairgateError(what, where=str(root.resolve()), remedy="rename the folder")
