"""One evaluation: tasks of a role -> item table, metrics and environment record of one model."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from stages.common.digests import weight_digest
from stages.common.errors import FairgateError
from stages.common.files import atomic_folder, write_json
from stages.common.items import ITEMS, write_items
from stages.common.metrics import derive, metrics_of
from stages.common.records import SCHEMA, Environment, Quantization, Role, read_record, write_record
from stages.evaluate.benchmark import Benchmark, Catalogue
from stages.evaluate.model import KERNEL_TOLERANCE, Model, kernel_difference, load
from stages.evaluate.score import score
from stages.evaluate.settings import Evaluate
from stages.evaluate.subset import draw
from stages.evaluate.tokens import Encoded, Encoder


def evaluate(
    recipe: str, folder: Path, out: Path, settings: Evaluate, catalogue: Catalogue, *, role: Role, tasks: Sequence[str] = ()
) -> dict[str, float]:
    """Score the model in `folder` and write items.parquet, metrics.json and environment.json to `out`; returns the metrics.

    Args:
        recipe: name of the model in the item table.
        tasks: those to run; empty: those of `settings.tasks` that have the role.
    Raises:
        FairgateError: an unknown task, one whose data has not the role, missing or wrong data, a prompt beyond the context,
            a likelihood that is not finite, a packed kernel that disagrees with the unpacked weights.
    """
    names = _names(catalogue, settings, role, tasks)
    catalogue.require(names, role)
    if role == Role.calibration:
        _require_uncalibrated(folder)
    benchmarks = [catalogue.load(name) for name in names]
    model = load(folder, dtype=settings.dtype, device=settings.device)
    encoder = Encoder(model.tokenizer, model.context)
    rows: list[dict[str, Any]] = []
    records: dict[str, Any] = {}
    for benchmark in benchmarks:
        encoded, total = _chosen(benchmark, encoder, settings)
        records[benchmark.name] = _record(benchmark, encoded, total, model)
        progress = Progress(benchmark.name, encoded)
        scores = score(model, encoded, batch_tokens=settings.batch_tokens, done=progress.update)
        progress.finish()
        rows += [_row(recipe, benchmark, e, loglik) for e, loglik in zip(encoded, scores, strict=True)]
    # A bare GPU machine may have no packed kernel to compare with; the environment record then says null.
    difference = kernel_difference(model, folder) if model.packed and find_spec("gptqmodel") else None
    table = derive(pa.Table.from_pylist(rows, schema=ITEMS))
    metrics = metrics_of(table)
    with atomic_folder(out) as temporary:
        write_items(temporary / "items.parquet", table.to_pylist())
        write_json(temporary / "metrics.json", metrics)
        environment = _environment(settings, model, encoder, role, weight_digest(folder), records, difference)
        write_record(temporary / "environment.json", environment)
    return metrics


def _require_uncalibrated(folder: Path) -> None:
    """Refuse a model that was calibrated on pairs: the result would be of what it was made from."""
    record = folder / "quantization.json"
    if record.is_file() and (pairs := read_record(Quantization, record).pairs):
        raise FairgateError(
            f"was calibrated on {pairs} pairs of the calibration data",
            where=str(folder),
            remedy="report StereoSet test, or take a recipe that uses no pairs",
        )


def _names(catalogue: Catalogue, settings: Evaluate, role: Role, asked: Sequence[str]) -> list[str]:
    if asked:
        return list(dict.fromkeys(asked))
    listed = [name for name in settings.tasks if catalogue.metadata(name)["role"] == role]
    return listed or [name for name in catalogue.names if catalogue.metadata(name)["role"] == role]


def _chosen(benchmark: Benchmark, encoder: Encoder, settings: Evaluate) -> tuple[list[Encoded], int]:
    """The encoded items of the subset, and how many the data hold."""
    wanted = settings.tasks.get(benchmark.name)
    if benchmark.window is None:
        chosen = draw(benchmark.items, wanted, seed=settings.seed, benchmark=benchmark.name)
        return encoder.encode(chosen, benchmark.name), len(benchmark.items)
    windows = encoder.windows(benchmark)
    kept = {item.id for item in draw([w.item for w in windows], wanted, seed=settings.seed, benchmark=benchmark.name)}
    return [window for window in windows if window.item.id in kept], len(windows)


def _row(recipe: str, benchmark: Benchmark, encoded: Encoded, loglik: list[float]) -> dict[str, Any]:
    item = encoded.item
    return {
        "schema": SCHEMA,
        "model": recipe,
        "benchmark": benchmark.name,
        "task_version": benchmark.version,
        "item_id": item.id,
        "cluster": item.cluster,
        "group": item.group,
        "subgroup": item.subgroup,
        "prompt_hash": encoded.prompt_hash,
        "option_loglik": loglik,
        "n_tokens": [len(request.option) for request in encoded.requests],
        "n_chars": list(item.chars),
        "gold": item.gold,
        "covariate": item.covariate,
    }


def _record(benchmark: Benchmark, encoded: list[Encoded], total: int, model: Model) -> dict[str, Any]:
    """What was measured of one task: `items` of `available`, which are a part of `upstream` where the carrier is not complete."""
    return {
        "version": benchmark.version,
        "data": benchmark.data,
        "items": len(encoded),
        "available": total,
        "upstream": benchmark.upstream or total,
        "window": min(benchmark.window, model.context) if benchmark.window else None,
    }


def _environment(
    settings: Evaluate, model: Model, encoder: Encoder, role: Role, weights: str, tasks: dict[str, Any], difference: float | None
) -> Environment:
    return Environment(
        role=role,
        weight_digest=weights,
        versions={name: version(name) for name in ("torch", "transformers", "lm-eval")},
        dtype=settings.dtype,
        device=model.device.type if model.device.type == "cpu" else torch.cuda.get_device_name(model.device),
        threads=torch.get_num_threads(),
        batch_tokens=settings.batch_tokens,
        seed=settings.seed,
        start_token={
            "text": model.tokenizer.convert_ids_to_tokens(encoder.start),
            "rule": "BOS, else EOS, in front of an empty context; other contexts as the tokenizer encodes them",
        },
        context=model.context,
        prompts_beyond_context=0,  # one is an error
        packed_kernel=None if difference is None else {"difference": round(difference, 6), "tolerance": KERNEL_TOLERANCE},
        tasks=tasks,
    )


@dataclass
class Progress:
    """One line per task on stderr: items, items/s and time left (rewritten in place on a terminal)."""

    name: str
    encoded: list[Encoded]
    started: float = field(default_factory=time.monotonic)
    done: int = 0

    def update(self, requests: int) -> None:
        self.done += requests
        if sys.stderr.isatty():
            print(f"\r{self._line()}\x1b[K", end="", file=sys.stderr, flush=True)

    def finish(self) -> None:
        print(f"\r{self._line()}\x1b[K" if sys.stderr.isatty() else self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        options = sum(len(e.requests) for e in self.encoded)
        seconds = max(time.monotonic() - self.started, 1e-9)
        left = seconds / max(self.done, 1) * (options - self.done)
        share = self.done / options
        rate = share * len(self.encoded) / seconds
        return f"{self.name}: {share:.0%} of {len(self.encoded)} items, {rate:.1f} items/s, {seconds:.0f} s" + (
            f", {left:.0f} s left" if left else ""
        )


def model_folder(recipes: dict[str, Any], recipe: str, data: Path) -> Path:
    """Where the model of a recipe lies: `none` is the unquantized base."""
    method = recipes[recipe].get("method") if isinstance(recipes[recipe], dict) else None
    if method is None:
        raise FairgateError("has no method", where=f"recipes.{recipe}", remedy="add `method: none`, `rtn`, `gptq` or another one")
    return data / "base" if method == "none" else data / "models" / recipe
