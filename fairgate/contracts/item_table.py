"""The item table `items.parquet`: one row per item and model, validated on reading.

Every metric, flip and test derives from it.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fairgate.contracts.records import SCHEMA
from fairgate.support.errors import BadRecord, MissingFile
from fairgate.support.files import atomic_path


class Ending(StrEnum):
    """How a generated text ended."""

    ok = "ok"
    empty = "empty"  # nothing but white space, after the thoughts of a reasoning model
    no_answer = "no_answer"  # it ended without an answer that can be read
    out_of_budget = "out_of_budget"  # the budget ran out; an answer before that counts
    unclosed_thought = "unclosed_thought"  # the thoughts were never closed


# Columns:
#   option_loglik  summed log-likelihood (nats) of each option, in the task's option order
#   n_tokens       scored tokens of each option;  n_chars  its characters (for acc_norm)
#   cluster        what a bootstrap resamples as a whole: target term, passage, or the item itself
#   answer, gold   option indices;  correct  answer == gold;  biased  the stereotype is preferred
#   covariate      a number of the item that the metrics of its benchmark need besides
#   entropy        of softmax(option_loglik), divided by log(k): 0 certain .. 1 uniform
# Of generated text (option_loglik and n_tokens are empty lists):
#   text           what the model wrote;  status  how that ended (Ending)
#   answer         the option that was read out of it, -1 where none could be; of a continuation
#                  the judge's label, if one ran
#   score          of a continuation: probability that it is toxic, or its sentiment -1 .. 1; null
#                  where nothing was said
ITEMS = pa.schema(
    [
        ("schema", pa.int32()),
        ("model", pa.string()),
        ("benchmark", pa.string()),
        ("task_version", pa.string()),
        ("item_id", pa.string()),
        ("cluster", pa.string()),
        ("group", pa.string()),
        ("subgroup", pa.string()),
        ("prompt_hash", pa.string()),
        ("option_loglik", pa.list_(pa.float64())),
        ("n_tokens", pa.list_(pa.int32())),
        ("n_chars", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("answer", pa.int32()),
        ("gold", pa.int32()),
        ("covariate", pa.float64()),
        ("correct", pa.bool_()),
        ("biased", pa.bool_()),
        ("entropy", pa.float64()),
        ("status", pa.string()),
        ("score", pa.float64()),
    ]
)
# Added after the first tables were written: null where a table has no such column.
LATER = ("covariate", "status", "score")
REQUIRED = ("schema", "model", "benchmark", "task_version", "item_id", "cluster", "prompt_hash", "option_loglik", "n_tokens")


def write_items(path: Path | str, rows: list[dict[str, Any]]) -> None:
    """Write item rows (dicts with the columns of ITEMS; absent ones become null) as parquet."""
    full = [{"schema": SCHEMA, **row} for row in rows]
    table = pa.Table.from_pylist(full, schema=ITEMS)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_items(path: Path | str) -> pa.Table:
    """Read an item table and check its schema, version, required columns and unique items."""
    path = Path(path)
    remedy = "run `dvc repro evaluate` to write it again"
    if not path.is_file():
        raise MissingFile("no item table", where=str(path), remedy=remedy)
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadRecord(f"not a readable item table ({error})", where=str(path), remedy=remedy) from None
    for name in LATER:
        if name not in table.schema.names:
            table = table.append_column(ITEMS.field(name), pa.nulls(table.num_rows, ITEMS.field(name).type))
    missing = [name for name in ITEMS.names if name not in table.schema.names]
    if missing:
        raise BadRecord(f"column {missing[0]!r} is missing", where=str(path), remedy=remedy)
    table = table.select(ITEMS.names).cast(ITEMS)
    for name in REQUIRED:
        if table[name].null_count:
            raise BadRecord(f"column {name!r} has {table[name].null_count} empty values", where=str(path), remedy=remedy)
    versions = set(table["schema"].unique().to_pylist())
    if versions - {SCHEMA}:
        raise BadRecord(f"schema {sorted(versions)} instead of {SCHEMA}", where=str(path), remedy=remedy)
    keys = list(zip(table["benchmark"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    if len(set(keys)) != len(keys):
        double = next(key for key in keys if keys.count(key) > 1)
        raise BadRecord(f"item {double} occurs more than once", where=str(path), remedy=remedy)
    return table
