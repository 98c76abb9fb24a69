"""One evaluation: tasks of a role -> item table, metrics and environment record of one model."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
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
from fairgate.support.errors import FairgateError
from fairgate.support.files import atomic_folder, write_json
from fairgate.support.log import log
from stages.evaluate.generated.evaluation import evaluate_generated
from stages.evaluate.journal import WHOLE, discard
from stages.evaluate.model import KERNEL_TOLERANCE, Model, kernel_difference
from stages.evaluate.prepare import Preparation, Prepared, prepare_all
from stages.evaluate.rounding import rounding
from stages.evaluate.selection import Chosen, Selection
from stages.evaluate.session import IN_MEMORY, Session, Workspace, open_session, versions
from stages.evaluate.settings import Evaluate
from stages.evaluate.tokens import Encoded, Encoder

CHECKED = 8  # items of each task that are scored in float32 too if a CPU computes in 16 bits


@dataclass(frozen=True)
class Subject:
    """The model that is evaluated: its name in the item table, and its folder."""

    recipe: str
    folder: Path


def evaluate(subject: Subject, selection: Selection, settings: Evaluate, out: Path, workspace: Workspace = IN_MEMORY) -> dict[str, float]:
    """Score a model and write items.parquet, metrics.json and environment.json to `out`.

    Returns:
        The metrics; none if the workspace's shard is only a part, which writes no table.
    Raises:
        FairgateError: an unknown task, data without the role, missing or wrong data, too many
            prompts beyond the context, a likelihood that is not finite, a packed kernel that
            disagrees with the unpacked weights.
    """
    chosen = selection.resolve(settings)
    if selection.role == Role.calibration:
        _require_uncalibrated(subject.folder)
    session = open_session(subject.folder, settings, workspace)
    encoder = Encoder(session.model.tokenizer, session.model.context)
    results = _score(subject, selection, chosen, session, encoder, settings)
    for name in chosen.generated:
        rows, record = evaluate_generated(subject.recipe, selection.catalogue.load(name), session, settings, smoke=selection.smoke)
        results.add(name, rows, record)
    if (shard := workspace.shard) != WHOLE:
        log.info("part %d of %d is done; the run without --shard puts all parts together", shard.index, shard.count)
        return {}
    environment = _environment(settings, selection, chosen, session, encoder, results)
    table = derive(pa.Table.from_pylist(results.rows, schema=ITEMS), benchmark_of)
    metrics = metrics_of(table, benchmark_of)
    with atomic_folder(out) as temporary:
        write_items(temporary / "items.parquet", table.to_pylist())
        write_json(temporary / "metrics.json", metrics)
        write_record(temporary / "environment.json", environment)
    if workspace.folder:
        discard(workspace.folder, chosen.names)
    return metrics


@dataclass
class _Results:
    """Rows of the item table, what the environment record says of each task, and a sample.

    sample: the first items of each task with their log-likelihoods.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[str, Any] = field(default_factory=dict)
    sample: list[tuple[Encoded, list[float]]] = field(default_factory=list)

    def add(self, name: str, rows: list[dict[str, Any]], record: dict[str, Any]) -> None:
        self.rows += rows
        self.tasks[name] = record


def _score(subject: Subject, selection: Selection, chosen: Chosen, session: Session, encoder: Encoder, settings: Evaluate) -> _Results:
    """The tasks that are measured by log-likelihoods."""
    model, results = session.model, _Results()
    batch_tokens = pick_batch_tokens(settings.batch_tokens, model.device)
    prepare = Preparation(selection.catalogue, encoder, settings, model.packing, batch_tokens)
    for prepared in prepare_all(prepare, chosen.scored, _workers(model), session.workspace.prepared):
        scores = list(zip(prepared.encoded, session.score(prepared), strict=True))
        rows = [_row(subject.recipe, prepared, encoded, logliks) for encoded, logliks in scores]
        results.add(prepared.task.name, rows, _record(prepared, model))
        results.sample += [] if prepared.task.window else scores[:CHECKED]
    return results


def _require_uncalibrated(folder: Path) -> None:
    """Refuse a model that was calibrated on pairs: they may not measure it too."""
    record = folder / "quantization.json"
    if record.is_file() and (pairs := read_record(Quantization, record).pairs):
        raise FairgateError(
            f"was calibrated on {pairs} pairs of the calibration data",
            where=str(folder),
            remedy="report StereoSet test, or take a recipe that uses no pairs",
        )


def _workers(model: Model) -> int:
    """Processes that prepare the next tasks, so that a GPU does not wait for them."""
    return 0 if model.device.type == "cpu" else max(1, min(4, (os.cpu_count() or 1) - 1))


def _row(recipe: str, prepared: Prepared, encoded: Encoded, logliks: list[float]) -> dict[str, Any]:
    item = encoded.item
    return {
        "schema": SCHEMA,
        "model": recipe,
        "benchmark": prepared.task.name,
        "task_version": prepared.task.version,
        "item_id": item.id,
        "cluster": item.cluster,
        "group": item.group,
        "subgroup": item.subgroup,
        "prompt_hash": encoded.prompt_hash,
        "option_loglik": logliks,
        "n_tokens": [len(request.option) for request in encoded.requests],
        "n_chars": list(item.chars),
        "gold": item.gold,
        "covariate": item.covariate,
    }


def _record(prepared: Prepared, model: Model) -> dict[str, Any]:
    """What was measured of a task: `items` of `available`, which may be a part of `upstream`."""
    task = prepared.task
    record = {
        "version": task.version,
        "data": task.data,
        "items": len(prepared.encoded),
        "available": prepared.available,
        "upstream": task.upstream or prepared.available,
        "window": min(task.window, model.context) if task.window else None,
    }
    return record | _convention(prepared.encoded[0]) | ({"beyond_context": prepared.too_long} if prepared.too_long else {})


def _convention(encoded: Encoded) -> dict[str, str]:
    """How the texts became tokens, if the record's `start_token` does not say it.

    For spellings of a word: how many of them are a single token.
    """
    form = encoded.item.form
    spellings = {"spellings": f"{len(encoded.requests)} of {len(encoded.item.prompts)}"} if form == "next_token" else {}
    return {} if form == "options" else {"form": form, **spellings}


def _environment(
    settings: Evaluate, selection: Selection, chosen: Chosen, session: Session, encoder: Encoder, results: _Results
) -> Environment:
    model, folder = session.model, session.folder
    # A bare GPU machine may have no packed kernel to compare with; the record then says null.
    packed = model.packed and all(map(find_spec, ("gptqmodel", "optimum")))
    difference = kernel_difference(model, folder) if packed else None
    check = rounding(model, folder, results.sample) if model.device.type == "cpu" and model.dtype != "float32" else None
    return Environment(
        role=selection.role,
        weight_digest=session.weights,
        versions=versions(),
        dtype=model.dtype,
        device=session.device_name,
        threads=torch.get_num_threads(),
        batch_tokens=pick_batch_tokens(settings.batch_tokens, model.device),
        seed=settings.seed,
        start_token={
            "text": model.tokenizer.convert_ids_to_tokens(encoder.start),
            "rule": "BOS, else EOS, in front of an empty context; other contexts as the tokenizer encodes them"
            + "".join(f"; {model.tokenizer.convert_ids_to_tokens(token)!r}, which it appends, is left out" for token in encoder.appended),
        },
        context=model.context,
        prompts_beyond_context=sum(task.get("beyond_context", 0) for task in results.tasks.values()),
        packed_kernel=None if difference is None else {"difference": round(difference, 6), "tolerance": KERNEL_TOLERANCE},
        tasks=results.tasks,
        skipped=chosen.skipped,
        rounding=check,
    )
