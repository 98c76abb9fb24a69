"""One evaluation: tasks of a role -> item table, metrics and environment record of one model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from fairgate.benchmarks import benchmark_of
from fairgate.contracts.item_table import ITEMS, write_items
from fairgate.contracts.records import SCHEMA, Environment, Quantization, Role, read_record, write_record
from fairgate.metrics.estimates import derive, metrics_of
from fairgate.support.devices import pick_batch_tokens
from fairgate.support.digests import weight_digest
from fairgate.support.errors import FairgateError, MissingFile
from fairgate.support.files import atomic_folder, write_json
from fairgate.support.log import log
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.generated import evaluation
from stages.evaluate.journal import Journal, Shard, digest, discard, open_journal
from stages.evaluate.model import KERNEL_TOLERANCE, Model, kernel_difference, load
from stages.evaluate.prepare import Preparation, Prepared, parts
from stages.evaluate.progress import ProgressLine
from stages.evaluate.rounding import rounding
from stages.evaluate.score import likelihoods, scatter
from stages.evaluate.settings import Evaluate
from stages.evaluate.task import Task
from stages.evaluate.tokens import Encoded, Encoder

WHOLE = Shard()
CHECKED = 8  # items of each task that are scored in float32 too, where a CPU computes in 16 bits


def evaluate(
    recipe: str,
    folder: Path,
    out: Path,
    settings: Evaluate,
    catalogue: Catalogue,
    *,
    role: Role,
    tasks: Sequence[str] = (),
    smoke: bool = False,
    work: Path | None = None,
    shard: Shard = WHOLE,
    ready: dict[str, Prepared] | None = None,
) -> dict[str, float]:
    """Score the model in `folder` and write items.parquet, metrics.json and environment.json to `out`; returns the metrics.

    Args:
        recipe: name of the model in the item table.
        tasks: those to run; empty: those of `settings.tasks` that have the role, or all of the role whose data are there.
        smoke: a few items of tasks with generated text, to see that they run (texts.py).
        work: where finished batches outlive a kill; None: nowhere.
        shard: this process scores its part into `work` and writes no table; the run without one puts all parts together.
        ready: tasks of this catalogue that an earlier run made ready, for models with the same tokenizer; those of this run are added.
    Raises:
        FairgateError: an unknown task, one whose data has not the role, missing or wrong data, too many prompts beyond the context,
            a likelihood that is not finite, a packed kernel that disagrees with the unpacked weights.
    """
    names, skipped = _names(catalogue, settings, role, tasks)
    generated = [name for name in names if catalogue.is_generated(name)]
    if smoke and (others := [name for name in names if name not in generated]):
        raise FairgateError("a smoke run is for tasks with generated text", where=f"task {others[0]}", remedy="run it as it is")
    catalogue.require(names, role)
    if role == Role.calibration:
        _require_uncalibrated(folder)
    with ThreadPoolExecutor(1) as beside:  # of a large model it takes as long as reading the weights
        weights = beside.submit(weight_digest, folder)
        model = load(folder, dtype=settings.dtype, device=settings.device)
    encoder = Encoder(model.tokenizer, model.context)
    run = Run(model, folder, weights.result(), work, shard)
    rows: list[dict[str, Any]] = []
    records: dict[str, Any] = {}
    sample: list[tuple[Encoded, list[float]]] = []
    scored = [name for name in names if name not in generated]
    prepare = Preparation(catalogue, encoder, settings, model.masked, pick_batch_tokens(settings.batch_tokens, model.device))
    for part in parts(prepare, scored, _workers(model), ready):
        scores = run.score(part)
        records[part.benchmark.name] = _record(part, model)
        rows += [_row(recipe, part.benchmark, e, loglik) for e, loglik in zip(part.encoded, scores, strict=True)]
        sample += [] if part.benchmark.window else list(zip(part.encoded, scores, strict=True))[:CHECKED]
    for name in generated:
        written, records[name] = evaluation.write(recipe, catalogue.load(name), run, settings, smoke=smoke)
        rows += written
    if shard != WHOLE:
        log.info("part %d of %d is done; the run without --shard puts all parts together", shard.index, shard.count)
        return {}
    # A bare GPU machine may have no packed kernel to compare with; the environment record then says null.
    difference = kernel_difference(model, folder) if model.packed and all(map(find_spec, ("gptqmodel", "optimum"))) else None
    check = rounding(model, folder, sample) if model.device.type == "cpu" and model.dtype != "float32" else None
    table = derive(pa.Table.from_pylist(rows, schema=ITEMS), benchmark_of)
    metrics = metrics_of(table, benchmark_of)
    with atomic_folder(out) as temporary:
        write_items(temporary / "items.parquet", table.to_pylist())
        write_json(temporary / "metrics.json", metrics)
        environment = _environment(settings, model, encoder, role, run.weights, records, difference)
        environment = environment.model_copy(update={"skipped": skipped, "rounding": check})
        write_record(temporary / "environment.json", environment)
    if work:
        discard(work, names)
    return metrics


@dataclass(frozen=True)
class Run:
    """A loaded model, and where its scores are kept."""

    model: Model
    folder: Path
    weights: str
    work: Path | None
    shard: Shard

    def score(self, part: Prepared) -> list[list[float]]:
        """Log-likelihoods [item][option]; those of other processes' parts are 0 unless they are kept already."""
        sums = [[0.0] * len(e.requests) for e in part.encoded]
        progress = ProgressLine(part.benchmark.name, len(part.encoded), sum(map(len, sums)))
        with self.journal(part.benchmark, lambda: {"requests and batches": digest(part.batches)}) as done:
            for number, values in done.values.items():
                scatter(part.batches[number], values, sums)
                progress.update(len(values))
            wanted = [n for n in range(len(part.batches)) if self.shard.owns(n) and n not in done.values]
            for number, values, pieces in likelihoods(self.model, part.batches, wanted, part.encoded, done.pieces):
                done.add(number, values, pieces)
                scatter(part.batches[number], values, sums)
                progress.update(len(values))
        progress.finish()
        return sums

    def journal(self, benchmark: Task, made_from: Callable[[], dict[str, Any]]) -> AbstractContextManager[Journal]:
        """What is done of a benchmark, where it was made from the same."""
        fingerprint = self._fingerprint(benchmark) | made_from() if self.work else {}
        return open_journal(self.work, benchmark.name, fingerprint, self.shard)

    def _fingerprint(self, benchmark: Task) -> dict[str, Any]:
        return {
            "weights": self.weights,
            "dtype": self.model.dtype,
            "device": _device(self.model),
            "threads": torch.get_num_threads(),
            "versions": _versions(),
            "task version": benchmark.version,
        }


def _require_uncalibrated(folder: Path) -> None:
    """Refuse a model that was calibrated on pairs: the result would be of what it was made from."""
    record = folder / "quantization.json"
    if record.is_file() and (pairs := read_record(Quantization, record).pairs):
        raise FairgateError(
            f"was calibrated on {pairs} pairs of the calibration data",
            where=str(folder),
            remedy="report StereoSet test, or take a recipe that uses no pairs",
        )


def _names(catalogue: Catalogue, settings: Evaluate, role: Role, asked: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The tasks to run, and those of the role that are left out because nobody asked for them and their data are not there."""
    named = list(dict.fromkeys(asked)) or [name for name in settings.tasks if catalogue.metadata(name)["role"] == role]
    if named:
        return named, {}
    names = [name for name in catalogue.names if catalogue.metadata(name)["role"] == role and not catalogue.is_generated(name)]
    skipped = {name: reason for name in names if (reason := catalogue.absent(name))}
    for name, reason in skipped.items():
        log.warning("%s: skipped, %s", name, reason)
    if len(skipped) == len(names):
        raise MissingFile(f"no data for any task of the role {role}", where="data/raw", remedy="run `dvc repro fetch`")
    return [name for name in names if name not in skipped], skipped


def _workers(model: Model) -> int:
    """Processes that read and tokenise the next tasks: beside a GPU, where it is they that it would wait for."""
    return 0 if model.device.type == "cpu" else max(1, min(4, (os.cpu_count() or 1) - 1))


def _row(recipe: str, benchmark: Task, encoded: Encoded, loglik: list[float]) -> dict[str, Any]:
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


def _record(part: Prepared, model: Model) -> dict[str, Any]:
    """What was measured of one task: `items` of `available`, which are a part of `upstream` where the carrier is not complete."""
    benchmark = part.benchmark
    record = {
        "version": benchmark.version,
        "data": benchmark.data,
        "items": len(part.encoded),
        "available": part.available,
        "upstream": benchmark.upstream or part.available,
        "window": min(benchmark.window, model.context) if benchmark.window else None,
    }
    return record | _convention(part.encoded[0]) | ({"beyond_context": part.beyond} if part.beyond else {})


def _convention(encoded: Encoded) -> dict[str, str]:
    """How the texts became tokens, where the rule of `start_token` does not say it; how many spellings of a word are one token."""
    form = encoded.item.form
    spellings = {"spellings": f"{len(encoded.requests)} of {len(encoded.item.prompts)}"} if form == "next_token" else {}
    return {} if form == "options" else {"form": form, **spellings}


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "lm-eval")}


def _device(model: Model) -> str:
    return model.device.type if model.device.type == "cpu" else torch.cuda.get_device_name(model.device)


def _environment(
    settings: Evaluate, model: Model, encoder: Encoder, role: Role, weights: str, tasks: dict[str, Any], difference: float | None
) -> Environment:
    return Environment(
        role=role,
        weight_digest=weights,
        versions=_versions(),
        dtype=model.dtype,
        device=_device(model),
        threads=torch.get_num_threads(),
        batch_tokens=pick_batch_tokens(settings.batch_tokens, model.device),
        seed=settings.seed,
        start_token={
            "text": model.tokenizer.convert_ids_to_tokens(encoder.start),
            "rule": "BOS, else EOS, in front of an empty context; other contexts as the tokenizer encodes them",
        },
        context=model.context,
        prompts_beyond_context=sum(task.get("beyond_context", 0) for task in tasks.values()),
        packed_kernel=None if difference is None else {"difference": round(difference, 6), "tolerance": KERNEL_TOLERANCE},
        tasks=tasks,
    )
