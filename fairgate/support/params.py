"""Read `params.yaml`. Every section is a frozen pydantic model that refuses unknown keys.

What a section leaves out takes the default of its model's field.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fairgate.support.errors import FairgateError, MissingFile, UnknownName
from fairgate.support.names import check_params
from fairgate.support.strict_yaml import read_yaml

PARAMS = Path("params.yaml")
# What each generator of random numbers takes: Python's, NumPy's and torch's.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """Base of every parameter section.

    Frozen, without unknown keys, every number finite, and no value is converted from one type into
    another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


def read_params(path: Path | str = PARAMS) -> dict[str, Any]:
    """The whole parameter file as plain data, its names checked.

    Raises:
        MissingFile: no such file.
        FairgateError: not valid YAML, not read alike by every reader, no mapping, or a name that
            breaks the rules (fairgate/support/names.py).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile("no parameter file", where=str(path), remedy="run from the project's root, or give --params")
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise FairgateError("not a mapping of sections", where=str(path), remedy="restore it from the repository")
    check_params(data, where=str(path))
    return data


def pick(params: dict[str, Any], key: str, *, kind: str = "parameter", where: str = str(PARAMS)) -> Any:
    """The value at a dotted key.

    Raises:
        UnknownName: no such key; the message gives the nearest right one.
    """
    value: Any = params
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            known = value if isinstance(value, dict) else {}
            raise UnknownName.of(kind, part, known, where=where)
        value = value[part]
    return value


def parse(model: type[Model], data: Any, *, where: str) -> Model:
    """Validate `data` as `model`.

    Args:
        model: the section's model.
        data: the section as read from YAML.
        where: file and section, for the message.

    Raises:
        UnknownName: an unknown key; the message gives the nearest right one.
        FairgateError: any other fault; the message names the key and the value.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UnknownName.of("parameter", str(first["loc"][-1]), _fields(model, first["loc"][:-1]), where=where) from None
        if not first["loc"] and first["type"] == "model_type":
            raise FairgateError(f"not a mapping of keys (got {data!r})", where=where, remedy=_correct(where)) from None
        # A rule of the whole section says in its own words which key and value it means.
        value = "" if first["type"] in ("missing", "value_error") else f" (got {first['input']!r})"
        what = first["msg"].removeprefix("Value error, ") + value
        known = re.findall(r"'([^']*)'", first.get("ctx", {}).get("expected", ""))
        near = difflib.get_close_matches(str(first["input"]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise FairgateError(f"{key}: {what}" if key else what, where=where, remedy=hint + _correct(where)) from None


def _correct(where: str) -> str:
    return f"correct this key in {where.split(':')[0]}"


def _fields(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Field names of the model nested at `loc`; empty if `loc` leads through anything else."""
    here: Any = model
    for part in loc:
        if isinstance(part, int):  # an index: `here` is already the model of the list's entries
            continue
        field = here.model_fields.get(str(part)) if isinstance(here, type) and issubclass(here, BaseModel) else None
        kinds = (getattr(field.annotation, "__args__", ()) or (field.annotation,)) if field else ()
        models = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not models:
            return []
        here = models[0]
    return list(here.model_fields)


def load(model: type[Model], key: str, path: Path | str = PARAMS) -> Model:
    """Section `key` of the parameter file as `model`."""
    return parse(model, pick(read_params(path), key, where=str(path)), where=f"{path}:{key}")
