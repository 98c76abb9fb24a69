"""The JSON schema of `params.yaml`, from which editors complete and check it.

`make schema` writes `params.schema.json`. The first line of `params.yaml` names that file, which
is where the YAML language server looks. The schema holds types, ranges, known keys and the
description of every field. What concerns several fields at once, the stages check.
"""

from __future__ import annotations

import json
import sys
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict

from fairgate.decision.policy import Policy
from fairgate.support.files import atomic_path
from flows.preflight import sections
from stages.quantize.methods import METHODS

FILE = "params.schema.json"


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # a title would only repeat the key


def schema() -> dict[str, Any]:
    """The JSON schema of the whole parameter file."""
    methods = reduce(or_, [method.settings for method in METHODS.values()])
    recipe = Annotated[methods, Field(discriminator="method")]  # type: ignore[valid-type]
    fields = {
        "model": Annotated[
            str, Field(description="A name of stages/fetch/manifest.yaml, a model folder, or a hub id as owner/name@commit.")
        ],
        "matrix": Annotated[list[str], Field(description="The recipes that are quantized and evaluated, beside the unquantized `base`.")],
        "recipes": Annotated[dict[str, recipe], Field(description="Settings by recipe name; `method` decides which settings there are.")],
        "gate": Policy,
        **sections(),
    }
    # Not a model, in which a field `register` would hide a method of that name.
    params = TypedDict("Params", fields)  # type: ignore[misc]
    params.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    schema = TypeAdapter(params).json_schema(schema_generator=_Untitled)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "description": "Every setting of the pipeline.", **schema}


def text() -> str:
    """The content of `params.schema.json`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    with atomic_path(Path(FILE)) as temporary:
        temporary.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
