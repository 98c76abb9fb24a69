"""The names that a person gives: recipes, tasks, models and versions.

A name becomes a folder, a key of DVC, a word of a shell command and a name in the registry. One
pattern fits all of them: letters, digits, `_` and `-`, with a letter first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from fairgate.support.errors import FairgateError

LONGEST = 64
_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_-]{{0,{LONGEST - 1}}}")
_REMEDY = f"use at most {LONGEST} letters, digits, `_` and `-`, with a letter first"
# Some reader of YAML takes them for a boolean, for nothing, or for a number.
_WORDS_OF_YAML = frozenset(("true", "false", "yes", "no", "on", "off", "y", "n", "null", "none", "nan", "inf"))
# Folders beside those of the candidates in data/reports.
_TAKEN = frozenset(("metrics", "plots"))
_BASE, _UNQUANTIZED = "base", "none"  # the recipe of the model as fetched, and its method
_REGISTERED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,255}")
_VERSION = re.compile(r"[0-9]{1,9}")


def check_name(kind: str, name: object, *, where: str = "") -> None:
    """Require that `name` can be the name of a recipe or a task.

    Args:
        kind: what is named, for the message.
        name: as read from the parameter file or a command line.
        where: file and key, or the argument.

    Raises:
        FairgateError: not a text, another pattern, or a reserved word.
    """
    if not isinstance(name, str):
        raise FairgateError(f"the name of a {kind} is not a text (got {name!r})", where=where, remedy=_REMEDY)
    if not _NAME.fullmatch(name):
        raise FairgateError(f"{_shown(name)} cannot be the name of a {kind}", where=where, remedy=_REMEDY)
    if name.casefold() in _WORDS_OF_YAML | _TAKEN:
        raise FairgateError(f"{name!r} is reserved and cannot be the name of a {kind}", where=where, remedy="pick another name")


def check_model(model: object, *, where: str = "") -> None:
    """Require that `model` can name a model: of the manifest, a folder, or `owner/name@commit`.

    Raises:
        FairgateError: not a text, empty, with blanks around it, with a control character, or
            `~user/...`.
    """
    if not isinstance(model, str):
        raise FairgateError(f"the model's name is not a text (got {model!r})", where=where, remedy="put it in quotes, or name a model")
    if not model or model != model.strip():
        raise FairgateError(
            f"the model's name is empty or has blanks around it (got {model!r})", where=where, remedy="take the blanks away"
        )
    if not model.isprintable():
        raise FairgateError(f"the model's name has a character that cannot be printed (got {model!r})", where=where, remedy="rename it")
    if model.startswith("~") and model[1:2] not in ("", "/"):
        raise FairgateError(f"another user's home cannot be named (got {model!r})", where=where, remedy="write the whole path")


def check_registered(name: str, *, where: str = "--name") -> None:
    """Require that `name` can be the name of a registered model."""
    if not _REGISTERED.fullmatch(name):
        raise FairgateError(
            f"{_shown(name)} cannot be a registered model", where=where, remedy="use at most 256 letters, digits, `_`, `.` and `-`"
        )


def check_version(version: str, *, where: str = "--version") -> None:
    """Require that `version` is the number of a version."""
    if not _VERSION.fullmatch(version):
        raise FairgateError(f"{_shown(version)} is no version", where=where, remedy="give its number; there is no 'latest'")


def check_params(params: dict[str, Any], *, where: str) -> None:
    """Check every name in the parameters. Another shape is left to the section's model.

    Raises:
        FairgateError: a name breaks the rules, two recipes differ in case only, or `base` is
            quantized.
    """
    recipes, matrix = params.get("recipes"), params.get("matrix")
    gate, evaluate = params.get("gate"), params.get("evaluate")
    if "model" in params:
        check_model(params["model"], where=f"{where}:model")
    if isinstance(recipes, dict):
        _check_recipes(recipes, where=f"{where}:recipes")
        base = recipes.get(_BASE)
        if isinstance(base, dict) and base.get("method", _UNQUANTIZED) != _UNQUANTIZED:
            what = f"{_BASE!r} is the unquantized model (got method {base['method']!r})"
            remedy = f"write `method: {_UNQUANTIZED}`, or give the recipe another name"
            raise FairgateError(what, where=f"{where}:recipes.{_BASE}", remedy=remedy)
    if isinstance(matrix, list):
        _check_recipes(matrix, where=f"{where}:matrix")
    if isinstance(gate, dict):
        for key in ("candidate", "reference"):
            if key in gate:
                check_name("recipe", gate[key], where=f"{where}:gate.{key}")
    if isinstance(evaluate, dict) and isinstance(tasks := evaluate.get("tasks"), dict):
        for task in tasks:
            check_name("task", task, where=f"{where}:evaluate.tasks")


def _check_recipes(names: Iterable[object], *, where: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        check_name("recipe", name, where=where)
        if (folder := str(name).casefold()) in seen:
            what = f"{name!r} stands twice" if seen[folder] == name else f"{seen[folder]!r} and {name!r} are one folder on some disks"
            raise FairgateError(what, where=where, remedy="rename one of them, or take one away")
        seen[folder] = str(name)


def _shown(name: str) -> str:
    return repr(name if len(name) <= LONGEST else f"{name[:LONGEST]}...")
