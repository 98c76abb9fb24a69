"""`contributions.csv`: where in the weights the pair penalty F = tr (. C .^T) / P sits, additively
(docs/methods.md).

Levels nest: the model's rows are the sum of its blocks' and of its matrix types', those of their
modules', and a module's of its input channels' and of its output channels'. Of the channels the
largest are listed, and one row without a number holds all others, so the sums stay exact.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ValidationError

from fairgate.contracts.records import Record
from fairgate.support.errors import BadRecord, MissingFile
from fairgate.support.files import atomic_path

FILE = "contributions.csv"
STATES = ("weight", "target", "quantized", "alpha_zero")
_REMEDY = "run `dvc repro quantize` to write it again"
_ADDITIVE = 1e-6  # of the sum of magnitudes: sums are of 64 bits, the terms of 32


class Contribution(Record):
    """One row. A channel's value may be negative (channels cancel); a module's cannot.

    weight: the penalty of W.
    target: the penalty of W', before rounding.
    quantized: the penalty of Q.
    alpha_zero: the penalty of what plain GPTQ leaves on the same inputs. None means that it was not
        computed.
    """

    written_by: ClassVar[str] = "quantize"
    level: Literal["model", "kind", "block", "module", "input", "output"]
    block: int | None = None
    kind: str | None = None
    module: str | None = None
    channel: int | None = None  # None for channels: all that are not listed
    weight: float
    target: float
    quantized: float
    alpha_zero: float | None = None

    def values(self) -> list[float | None]:
        """In the order of STATES."""
        return [getattr(self, state) for state in STATES]


def rolled_up(modules: Sequence[Contribution]) -> list[Contribution]:
    """Rows of modules and channels, with those of model, matrix types and blocks in front.

    Raises:
        BadRecord: the channels of a module do not add up to it.
    """
    require_additive(modules, where=FILE)
    whole = [row for row in modules if row.level == "module"]
    kinds = [total([r for r in whole if r.kind == kind], level="kind", kind=kind) for kind in dict.fromkeys(r.kind for r in whole)]
    blocks = [total(list(part), level="block", block=block) for block, part in groupby(whole, key=lambda row: row.block)]
    return [total(whole, level="model"), *kinds, *blocks, *modules]


def total(rows: Sequence[Contribution], **names: object) -> Contribution:
    """One row with the sums of others."""
    columns = zip(*(row.values() for row in rows), strict=True)
    sums = [None if None in column else math.fsum(column) for column in columns]
    return Contribution.model_validate({**names, **dict(zip(STATES, sums, strict=True))})


def require_additive(rows: Iterable[Contribution], *, where: str) -> None:
    """Raise BadRecord unless sum_j f_j = F: inputs and outputs of every module, and modules, types
    and blocks of the model, add up.
    """
    rows = list(rows)
    for level in ("input", "output"):
        parts = {module: list(part) for module, part in groupby((r for r in rows if r.level == level), key=lambda row: row.module)}
        for module in (row for row in rows if row.level == "module"):
            _same(module, parts.get(module.module, []), f"{module.module}, {level}s", where)
    for model in (row for row in rows if row.level == "model"):
        for level in ("kind", "block", "module"):
            _same(model, [row for row in rows if row.level == level], f"all {level}s", where)


def _same(whole: Contribution, parts: Sequence[Contribution], what: str, where: str) -> None:
    for state, value in zip(STATES, whole.values(), strict=True):
        summands = [getattr(part, state) for part in parts]
        if value is None and all(summand is None for summand in summands):
            continue
        if value is None or None in summands or abs(math.fsum(summands) - value) > _ADDITIVE * max(abs(value), *map(abs, summands), 1e-30):
            known = [summand for summand in summands if summand is not None]
            raise BadRecord(f"{what} do not add up: {state} is {value}, their sum {math.fsum(known):.9g}", where=where, remedy=_REMEDY)


def write_contributions(path: Path, rows: Sequence[Contribution]) -> None:
    """Write the table; None is an empty cell, and every float reads back as the same number."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        table = csv.DictWriter(out, list(Contribution.model_fields), lineterminator="\n")
        table.writeheader()
        table.writerows(row.model_dump() for row in rows)


def read_contributions(path: Path) -> list[Contribution]:
    """Read and validate the table; errors name file, line and field."""
    if not path.is_file():
        raise MissingFile("no such file", where=str(path), remedy=_REMEDY)
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [_row(cells, f"{path}:{number}") for number, cells in enumerate(csv.DictReader(lines), 2)]
    require_additive(rows, where=str(path))
    return rows


def _row(cells: dict[str, str], where: str) -> Contribution:
    try:
        return Contribution.model_validate({key: value for key, value in cells.items() if value != ""})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        raise BadRecord(f"field {field!r}: {first['msg']}", where=where, remedy=_REMEDY) from None
