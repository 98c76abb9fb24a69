"""What the task files say about themselves: title, role, ideal values, rows of the report.

Read as plain YAML: neither lm-eval nor the dataset hooks are imported.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fairgate.contracts.records import Role
from fairgate.support.errors import UnknownName
from fairgate.support.strict_yaml import read_yaml

FOLDER = Path(__file__).parent


class Headline(BaseModel):
    """One metric as a row of the report's first table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: int = Field(description="order among the rows of all benchmarks")
    name: str = Field(description="what the report calls the metric, with its unit")
    ideal: str = Field(description="what is better, in words")
    panel: Literal["bias", "ability", "perplexity"] | None = Field(None, description="figure that shows it; None means table only")
    digits: int = Field(1, description="decimals as printed")
    scale: float = Field(1.0, description="factor from the metric's unit to the printed one; 100 for %")


class Description(BaseModel):
    """The metadata of a task file that name and place the benchmark; the hooks read the rest."""

    model_config = ConfigDict(frozen=True)

    set: str = Field(description="data set in stages/fetch/manifest.yaml, or one that calibrate derives")
    role: Role = Field(description="who may use it; evaluate refuses any other")
    title: str = Field(description="name in the report")
    dataset: str | None = Field(None, description="name of the data in the model card; None means the title")
    about: Literal["bias", "ability"] = Field(description="what is measured")
    ideal: dict[str, float | Literal["low"]] = Field(min_length=1, description="best value by metric")
    headline: dict[str, Headline] = Field({}, description="rows of the report's first table by metric")
    source: str = Field(description="paper or origin; the licence of the data is in the manifest")

    @property
    def data_name(self) -> str:
        """Name of the data in the model card."""
        return self.dataset or self.title


@cache
def descriptions(folder: Path = FOLDER) -> dict[str, Description]:
    """Every task by name; pydantic's ValidationError says which field is missing or wrong."""
    files = [_read(file) for file in sorted(folder.glob("*/*.yaml"))]
    return {file["task"]: Description.model_validate(file["metadata"]) for file in files}


def description(task: str) -> Description:
    """What the task file of `task` says about itself; UnknownName gives the nearest right name."""
    known = descriptions()
    if task not in known:
        raise UnknownName.of("task", task, known, where="fairgate/benchmarks")
    return known[task]


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_yaml(file, tags=("!function",))
    return content
