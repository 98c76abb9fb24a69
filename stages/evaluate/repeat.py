"""The noise floor: one model scored twice, with nothing changed but the batch size and the dtype."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fairgate.benchmarks import benchmark_of
from fairgate.contracts.item_table import read_items
from fairgate.contracts.records import Environment, read_record, write_record
from fairgate.metrics.noise import Noise, Stack, floors
from stages.evaluate.settings import Evaluate
from stages.evaluate.stage import evaluate


def evaluate_twice(recipe: str, folder: Path, out: Path, settings: Evaluate, *arguments: Any, **options: Any) -> dict[str, float]:
    """As `evaluate`, and beside its files `noise.json`: what flips where batches are half as large and the dtype is the other one.

    The other dtype is bfloat16 for float32, and float32 for 16 bits.
    """
    metrics = evaluate(recipe, folder, out, settings, *arguments, **options)
    first = read_record(Environment, out / "environment.json")
    other = settings.model_copy(
        update={"batch_tokens": max(1, first.batch_tokens // 2), "dtype": "bfloat16" if first.dtype == "float32" else "float32"}
    )
    with TemporaryDirectory() as scratch:
        again = Path(scratch) / "again"
        evaluate(recipe, folder, again, other, *arguments, **options)
        second = read_record(Environment, again / "environment.json")
        found = floors(read_items(out / "items.parquet"), read_items(again / "items.parquet"), benchmark_of)
    write_record(out / "noise.json", Noise(weight_digest=first.weight_digest, runs=(_stack(first), _stack(second)), floors=found))
    return metrics


def _stack(environment: Environment) -> Stack:
    return Stack(dtype=environment.dtype, device=environment.device, batch_tokens=environment.batch_tokens)
