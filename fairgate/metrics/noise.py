"""The noise floor `noise.json`: how many answers one model changes when only the stack changes.

The stack is batch size and dtype. A flip rate below the floor says nothing about quantization.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import ConfigDict, Field

from fairgate.contracts.records import SCHEMA, Environment, Record, read_record
from fairgate.metrics.estimates import Definitions
from fairgate.metrics.flips import flips, require_same_items
from fairgate.metrics.items import benchmarks_of
from fairgate.support.errors import BadRecord, FairgateError

FILE = "noise.json"


class Stack(Record):
    """What one of the two runs was made with."""

    written_by: ClassVar[str] = "evaluate"
    dtype: str
    device: str
    batch_tokens: int


class Floor(Record):
    """Shares of n items that changed between the runs; None means a benchmark without sides."""

    written_by: ClassVar[str] = "evaluate"
    n: int
    answer_flips: float
    bias_flips: float | None

    @property
    def rate(self) -> float:
        """What a margin must exceed: bias flips where there are sides, else answer flips."""
        return self.answer_flips if self.bias_flips is None else self.bias_flips


class Noise(Record):
    """`noise.json`: one model under two stacks, and the floor of each benchmark with answers."""

    written_by: ClassVar[str] = "evaluate"
    schema_: Literal[1] = Field(SCHEMA, alias="schema")
    weight_digest: str
    runs: tuple[Stack, Stack]
    floors: dict[str, Floor]

    model_config = ConfigDict(populate_by_name=True)

    def floor(self, benchmark: str) -> Floor:
        """The floor of one benchmark; FairgateError where it was not measured."""
        if benchmark not in self.floors:
            raise FairgateError(
                f"no noise floor of {benchmark!r} (there: {', '.join(self.floors)})",
                where="noise.json",
                remedy="run `python -m stages.evaluate --recipe base --repeat` again with this task",
            )
        return self.floors[benchmark]


def read_noise(folder: Path, environment: Environment) -> Noise | None:
    """`noise.json` of an evaluation folder; None means that it was not run twice.

    BadRecord: it was measured on other weights.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    noise = read_record(Noise, path)
    if noise.weight_digest != environment.weight_digest:
        what = f"measured on weights {noise.weight_digest[:12]} instead of {environment.weight_digest[:12]}"
        raise BadRecord(what, where=str(path), remedy="run `python -m stages.evaluate --repeat` on this recipe, or remove the file")
    return noise


def floors(first: pa.Table, second: pa.Table, definitions: Definitions) -> dict[str, Floor]:
    """Flips between two runs of one model, by benchmark; plain text has no answer and no floor.

    Raises:
        UnequalItems: the runs differ in items, prompts or tokens.
    """
    require_same_items(second, first)
    changes = {}
    for name in benchmarks_of(first):
        read = definitions(name).items
        changes[name] = flips(read(second, name), read(first, name))
    return {name: Floor(n=f.n, answer_flips=f.answer_flips, bias_flips=f.bias_flips) for name, f in changes.items() if f}
