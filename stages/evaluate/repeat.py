"""The noise floor: one model scored twice, with another batch size and another data type."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from fairgate.benchmarks import benchmark_of
from fairgate.contracts.item_table import read_items
from fairgate.contracts.records import Environment, read_record, write_record
from fairgate.metrics.noise import Noise, Stack, floors
from stages.evaluate.selection import Selection
from stages.evaluate.session import IN_MEMORY, Workspace
from stages.evaluate.settings import Evaluate
from stages.evaluate.stage import Subject, evaluate


def evaluate_twice(
    subject: Subject, selection: Selection, settings: Evaluate, out: Path, workspace: Workspace = IN_MEMORY
) -> dict[str, float]:
    """As `evaluate`, and noise.json beside its files: what flips in a second evaluation.

    The second has batches of half the size, and bfloat16 instead of float32 or float32 instead of
    16 bits.
    """
    metrics = evaluate(subject, selection, settings, out, workspace)
    first = read_record(Environment, out / "environment.json")
    changes = {"batch_tokens": max(1, first.batch_tokens // 2), "dtype": "bfloat16" if first.dtype == "float32" else "float32"}
    with TemporaryDirectory() as scratch:
        again = Path(scratch) / "again"
        evaluate(subject, selection, settings.model_copy(update=changes), again, workspace)
        second = read_record(Environment, again / "environment.json")
        flips = floors(read_items(out / "items.parquet"), read_items(again / "items.parquet"), benchmark_of)
    write_record(out / "noise.json", Noise(weight_digest=first.weight_digest, runs=(_stack(first), _stack(second)), floors=flips))
    return metrics


def _stack(environment: Environment) -> Stack:
    return Stack(dtype=environment.dtype, device=environment.device, batch_tokens=environment.batch_tokens)
