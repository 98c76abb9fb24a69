"""Check params.yaml and the registry before the first stage, instead of minutes later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

    Raises:
        FairgateError: the project lies where DVC cannot work; params.yaml or dvc.yaml is
            not read alike by every reader; a section that a stage reads is missing; a recipe,
            method, task, metric or parameter has an unknown name; a value is out of range; or the
            gate is about a recipe or a benchmark that is not evaluated.
    """
    from stages.quantize.settings import read_recipe

    path = root / "params.yaml"
    params = read_params(path)
    if (pipeline := root / "dvc.yaml").is_file():
        # Its refusals come first: DVC tells neither line nor key.
        for key, stage in _read_by_stages(read_yaml(pipeline)).items():
            if key not in params:
                what = f"{key!r} is missing, which stage {stage!r} reads"
                raise FairgateError(what, where=str(path), remedy="restore it from the repository")
    _check_folder(root)
    for key, model in sections().items():
        if key in params:
            load(model, key, path)
    recipes, matrix = params.get("recipes"), params.get("matrix", [])
    if "recipes" in params and not (isinstance(recipes, dict) and recipes):
        raise FairgateError(f"not a mapping of recipes (got {recipes!r})", where=f"{path}:recipes", remedy="restore it from the repository")
    if not isinstance(matrix, list):
        raise FairgateError(f"not a list of recipe names (got {matrix!r})", where=f"{path}:matrix", remedy="write e.g. [rtn, gptq]")
    if "matrix" in params and not matrix:
        raise FairgateError("no recipe: nothing would be quantized", where=f"{path}:matrix", remedy="write e.g. [rtn, gptq]")
    for name in matrix if recipes else []:
        read_recipe(name, path)
    for name in params.get("evaluate", {}).get("tasks", {}):
        if name not in descriptions():
            raise UnknownName.of("task", name, descriptions(), where=f"{path}:evaluate.tasks")
    if "gate" in params:
        _check_gate(params, path)


def _read_by_stages(pipeline: Any) -> dict[str, str]:
    """The keys of params.yaml that stages name, each with the first such stage.

    Another shape of the pipeline is left to DVC.
    """
    stages = pipeline.get("stages") if isinstance(pipeline, dict) else None
    keys: dict[str, str] = {}
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        params = stage.get("params") if isinstance(stage, dict) else None
        for key in params if isinstance(params, list) else ():
            if isinstance(key, str) and not key.startswith("$"):
                keys.setdefault(key.split(".")[0], name)
    return keys


def _check_gate(params: dict[str, Any], path: Path) -> None:
    """Raise FairgateError unless what the gate asks for is made and measured.

    Args:
        params: parameters whose other sections are sound.
    """
    from fairgate.decision.policy import read_policy

    policy = read_policy(path)
    recipes, matrix = params.get("recipes"), params.get("matrix", [])
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
    if evaluate := params.get("evaluate"):
        of_role = [name for name, description in descriptions().items() if description.role == evaluate["role"]]
        measured = [name for name in evaluate["tasks"] if name in of_role] or of_role  # as evaluate chooses
        for check in policy.checks:
            if check.kind != "health" and check.benchmark not in measured:
                raise FairgateError(
                    f"check {check.name!r} needs benchmark {check.benchmark!r}, which is not evaluated (there: {', '.join(measured)})",
                    where=f"{path}:gate.checks",
                    remedy="add it to evaluate.tasks (with evaluate.role: gate), or remove the check",
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
