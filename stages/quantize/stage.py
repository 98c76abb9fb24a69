"""The stage: base model and calibration data in, packed checkpoint and its record out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import device as Device
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from fairgate.contracts.contributions import FILE, rolled_up, write_contributions
from fairgate.contracts.records import ModuleRow, Quantization, Status, Training, write_record
from fairgate.model_folder.weights import weight_digest
from fairgate.support.devices import pick_device, pick_dtype
from fairgate.support.digests import sha256_file
from fairgate.support.files import atomic_folder
from fairgate.support.log import log
from stages.quantize.core.compute import Compute
from stages.quantize.methods import METHODS
from stages.quantize.methods.base import GridRecipe
from stages.quantize.model.streamed import Streamed
from stages.quantize.run.export import write_checkpoint
from stages.quantize.run.fingerprint import code_digest, input_digests, versions
from stages.quantize.run.placement import device_locks, make_products_reproducible, pick_others
from stages.quantize.run.preflight import preflight
from stages.quantize.run.resources import bounded, free_memory, require_resources
from stages.quantize.run.store import BlockStore, block_store
from stages.quantize.settings import RunSettings


def quantize(name: str, recipe: GridRecipe, run: RunSettings, base: Path, calibration: Path, out: Path, work: Path) -> Quantization:
    """Quantize the model in `base` by `recipe` into the folder `out`, atomically; returns the
    record written beside the weights.

    `work` holds finished blocks until the checkpoint is written: a run that was killed goes on
    there and ends with the same weights.
    """
    make_products_reproducible()
    architecture, device, method = preflight(base, recipe), pick_device(run.device, parameter="quantize.device"), METHODS[recipe.method]
    set_seed(run.seed)
    transformers_logging.disable_progress_bar()
    inputs = method.read(recipe, base, calibration, batch_tokens=run.batch_tokens, seed=run.seed)
    record: dict[str, Any] = {
        "recipe": name,
        "method": recipe.method,
        "settings": recipe.model_dump(mode="json"),
        "architecture": architecture.name,
        **input_digests(method.files(recipe), base, calibration),
        "pairs": inputs.pairs,
        "texts": inputs.texts,
        "tokens": inputs.tokens,
        "versions": versions(device),
        "seed": run.seed,
    }
    with (
        device_locks(device, run.gpus),
        bounded(device, run.gpu_gib),
        block_store(work, _fingerprint(record, run), recipe) as store,
        atomic_folder(out) as folder,
    ):
        source = Streamed(base, architecture)
        compute = _compute(recipe, run, device, source, inputs.data)
        lean_recipe, lean = method.leaner(recipe, compute)
        needs = method.forecast(recipe, source, compute, inputs.data)
        require_resources(needs, method.forecast(lean_recipe, source, lean, inputs.data), out, work, device)
        training = method.run(recipe, source, compute, inputs.data, store)
        store.flush()
        rows = store.rows(len(source.blocks))
        notes = [*inputs.notes, *_notes(source, store, rows, training)]
        written = _export(folder, recipe, source, store, rows)
        quantization = Quantization(**record, **written, notes=notes, modules=rows, training=training)
        write_record(folder / "quantization.json", quantization)
    _report(out, quantization)
    return quantization


def _fingerprint(record: dict[str, Any], run: RunSettings) -> dict[str, Any]:
    """What an unfinished run depends on: one that differs in any of it is not continued."""
    inputs = {key: value for key, value in record.items() if key.endswith("_digest")}
    return {
        "recipe": record["settings"],
        "run": run.model_dump(mode="json"),
        "versions": record["versions"],
        "code": code_digest(),
        **inputs,
    }


def _compute(recipe: GridRecipe, run: RunSettings, device: Device, source: Streamed, data: Any) -> Compute:
    """Devices and types of the run, and how many batches wait inside a block."""
    compute = Compute(
        device,
        pick_dtype(run.dtype, device),
        run.low_memory,
        others=pick_others(device, run.gpus),
        diagnostics=run.diagnostics,
        alpha_zero=run.alpha_zero,
    )
    if device.type != "cuda":
        return compute
    limit = free_memory(device) if run.gpu_gib is None else run.gpu_gib * 2**30
    return METHODS[recipe.method].fit(recipe, source, compute, data, limit)


def _notes(source: Streamed, store: BlockStore, rows: list[ModuleRow], training: Training | None) -> list[str]:
    """What a reader of the record should know of the run."""
    architecture, notes = source.architecture, []
    if architecture.traced:
        notes.append(f"{architecture.name!r} is not in the table of architectures; its groups were traced: {architecture.groups}")
    if source.tied:
        notes.append("the output layer is the embedding's own tensor and stays in full precision, as every output layer does")
    if cut := store.cut():
        notes += cut.notes
    if fallbacks := sum(row.status is Status.fallback_rtn for row in rows):
        where = " where learning started" if training else ""
        notes.append(f"{fallbacks} of {len(rows)} modules were rounded to nearest{where}: no factorization succeeded")
    return notes


def _export(folder: Path, recipe: GridRecipe, source: Streamed, store: BlockStore, rows: list[ModuleRow]) -> dict[str, Any]:
    """Write the checkpoint and its table of contributions; returns what the record says of them."""
    blocks, modules = len(source.blocks), {row.name for row in rows}
    sizes = write_checkpoint(source.base, folder, source.tensors(), store.tensors(blocks), modules, recipe, source.architecture)
    if contributions := store.contributions(blocks):
        write_contributions(folder / FILE, rolled_up(contributions))
    return {
        "weight_digest": weight_digest(folder),
        "files": {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.suffix != ".safetensors"},
        "bytes_base": sizes[0],
        "bytes_packed": sizes[1],
    }


def _report(out: Path, record: Quantization) -> None:
    """Log what was made, and what became of the penalty on the pairs."""
    rows, fallbacks = record.modules, sum(row.status is Status.fallback_rtn for row in record.modules)
    sizes = (record.bytes_base / 2**20, record.bytes_packed / 2**20)
    log.info("%s: %d modules, %.0f -> %.0f MiB, %d fallbacks", out, len(rows), *sizes, fallbacks)
    penalties = [row.penalty for row in rows if row.penalty]
    if before := sum(penalty.weight for penalty in penalties):
        target, quantized = (sum(getattr(penalty, part) for penalty in penalties) / before for part in ("target", "quantized"))
        log.info("penalty on the pairs: %.2f of the unquantized model's after the shift, %.2f after rounding", target, quantized)
