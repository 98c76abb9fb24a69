"""The stage: base model and calibration data in, packed checkpoint and its record out."""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, set_seed
from transformers.utils import logging as transformers_logging

from fairgate.contracts.contributions import FILE, rolled_up, write_contributions
from fairgate.contracts.records import Pair, Quantization, Status, Text, Training, read_records, write_record
from fairgate.support.devices import out_of_memory, pick_device, pick_dtype
from fairgate.support.digests import sha256_file, sha256_folder, sha256_json, weight_digest
from fairgate.support.errors import FairgateError
from fairgate.support.files import atomic_folder
from fairgate.support.locks import locked
from fairgate.support.log import log
from fairgate.support.special_tokens import pad_token
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import encode_pairs, encode_texts, pair_batches, start_notes, text_batches
from stages.quantize.methods.closed_form import Block, Calibration, gptq, replay, rtn, select
from stages.quantize.methods.groups import QuantizedModule
from stages.quantize.methods.learned.data import Draw, Slots, files, read_draw
from stages.quantize.methods.learned.method import learned
from stages.quantize.model.streamed import Streamed
from stages.quantize.run.export import packed, version_of, write_checkpoint
from stages.quantize.run.forecast import fitting, forecast, free_memory, require_resources
from stages.quantize.run.memory import bounded, most_slots, recut, until_out_of_memory
from stages.quantize.run.preflight import preflight
from stages.quantize.run.resume import Batches, Progress, Reached, progress
from stages.quantize.settings import Compute, FairGptq, FairRound, Gptq, Learned, Rtn, Run


def quantize(name: str, recipe: Rtn, run: Run, base: Path, calibration: Path, out: Path, work: Path) -> Quantization:
    """Quantize the model in `base` by `recipe` into the folder `out`, atomically; returns the record written beside the weights.

    `work` holds finished blocks until the whole is written: a run that was killed goes on there and ends with the same weights.
    """
    architecture = preflight(base, recipe)
    device = pick_device(run.device, parameter="quantize.device")
    set_seed(run.seed)
    transformers_logging.disable_progress_bar()
    data, counts, notes = _calibration(recipe, run, base, calibration)
    if architecture.traced:
        notes.append(f"{architecture.name!r} is not in the table of architectures; its groups were traced: {architecture.groups}")
    inputs = _inputs(recipe, base, calibration)
    versions = _versions(device)
    settings = recipe.model_dump(mode="json")
    fingerprint = {"recipe": settings, "run": run.model_dump(mode="json"), "versions": versions, "code": _code(), **inputs}
    slots, leaner, training = Slots(), recipe, None
    if isinstance(recipe, Learned):
        draw, drawn, noted = read_draw(recipe, run.seed, base, calibration)
        notes += [note for note in noted if note not in notes]
        counts = {name: max(count, drawn[name]) for name, count in counts.items()}  # the start's calibration counts too
        slots = draw.slots(recipe.texts, recipe.pairs if isinstance(recipe, FairRound) else 0)
        leaner = recipe.model_copy(update={"recompute": True})
    with _device_lock(device, run.gpus), bounded(device, run.gpu_gib), progress(work, fingerprint) as done, atomic_folder(out) as folder:
        source = Streamed(base, architecture)
        source.require_whole()
        told = {"diagnostics": run.diagnostics, "alpha_zero": run.alpha_zero}
        compute = Compute(device, pick_dtype(run.dtype, device), run.low_memory, others=pick_others(device, run.gpus), **told)
        stored = sum(file.stat().st_size for file in base.glob("*.safetensors"))
        if device.type == "cuda" and data.batches:
            limit = free_memory(device) if run.gpu_gib is None else run.gpu_gib * 2**30
            compute = replace(compute, waiting=fitting(source, recipe, compute, data.batches, stored, limit))
        needs = forecast(source, recipe, compute, data.batches, stored, slots)
        lean = forecast(source, leaner, replace(compute, low_memory=True), data.batches, stored, slots)
        require_resources(needs, lean, out, work, device)
        if isinstance(recipe, Learned):
            training = _learn(source, recipe, compute, data, draw, done)
        else:
            _finish(source, recipe, run, compute, data, lambda smaller: _calibration(recipe, smaller, base, calibration)[0], done)
        if source.tied:
            notes.append("the output layer is the embedding's own tensor and stays in full precision, as every output layer does")
        notes += batches.notes if (batches := done.batches()) else []
        rows = done.rows(len(source.blocks))
        fallbacks = sum(row.status is Status.fallback_rtn for row in rows)
        if fallbacks:
            where = " where learning started" if training else ""
            notes.append(f"{fallbacks} of {len(rows)} modules were rounded to nearest{where}: no factorization succeeded")
        bytes_base, bytes_packed = write_checkpoint(
            base, folder, source.tensors(), done.tensors(len(source.blocks)), {row.name for row in rows}, recipe, architecture
        )
        if contributions := done.contributions(len(source.blocks)):
            write_contributions(folder / FILE, rolled_up(contributions))
        record = Quantization(
            recipe=name,
            method=recipe.method,
            settings=settings,
            architecture=architecture.name,
            weight_digest=weight_digest(folder),
            files={path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.suffix != ".safetensors"},
            **inputs,
            **counts,
            versions=versions,
            seed=run.seed,
            bytes_base=bytes_base,
            bytes_packed=bytes_packed,
            notes=notes,
            modules=rows,
            training=training,
        )
        write_record(folder / "quantization.json", record)
    log.info("%s: %d modules, %.0f -> %.0f MiB, %d fallbacks", out, len(rows), bytes_base / 2**20, bytes_packed / 2**20, fallbacks)
    penalties = [row.penalty for row in rows if row.penalty]
    if before := sum(penalty.weight for penalty in penalties):
        target, quantized = (sum(getattr(penalty, part) for penalty in penalties) / before for part in ("target", "quantized"))
        log.info("penalty on the pairs: %.2f of the unquantized model's after the shift, %.2f after rounding", target, quantized)
    return record


def pick_others(device: torch.device, gpus: int) -> tuple[torch.device, ...]:
    """The GPUs beside the first; FairgateError where there are fewer than `gpus`."""
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if gpus > there:
        what = f"{gpus} GPUs asked for, {there} to be had on {device.type!r}"
        raise FairgateError(what, where="quantize.gpus", remedy=f"set it to {there} or less")
    return tuple(torch.device("cuda", number) for number in range(1, gpus))


def _finish(
    source: Streamed, recipe: Rtn, run: Run, compute: Compute, data: Calibration, cut: Callable[[Run], Calibration], done: Progress
) -> None:
    """Quantize all blocks that are not done.

    When memory runs out, batches are halved and every batch runs the block alone (`low_memory`), from the last finished block on.

    Args:
        data: the batches as asked for. cut: makes them anew for other settings of the run.
    Raises: FairgateError where no batch can be smaller.
    """
    while True:
        if batches := done.batches():
            data, compute = cut(run.model_copy(update={"batch_tokens": batches.tokens})), replace(compute, low_memory=True)
        reached = quantize_blocks(source, recipe, compute, data, done)
        if reached == len(source.blocks):
            return
        # Not where it was caught: the error's frames held the tensors that there was no room for.
        gc.collect()
        torch.cuda.empty_cache()
        tokens, where = most_slots(data.batches), f"{source.architecture.blocks}.{reached}"
        halved = max(tokens // 2, 1)
        if tokens == 0 or (compute.low_memory and most_slots(cut(run.model_copy(update={"batch_tokens": halved})).batches) >= tokens):
            raise FairgateError(
                f"out of memory, and no batch can be smaller ({tokens} token slots in the largest)",
                where=where,
                remedy="end what else needs memory, use `quantize.device: cpu` or a larger machine, or shorten `calibrate.text_words`",
            )
        note = f"out of memory at {where}: batches cut from {tokens} to {halved} token slots, each run alone from there on"
        log.warning(note)
        _bring_hidden(source, recipe, replace(compute, low_memory=True), data, done)
        done.cut(Batches(tokens=halved, notes=[*(batches.notes if batches else []), note]))


def _learn(source: Streamed, recipe: Learned, compute: Compute, data: Calibration, draw: Draw, done: Progress) -> Training:
    """Round by the closed form, learn from there, and store all blocks."""
    closed = recipe.closed_form()
    begun: list[QuantizedModule] = []
    with _enough_memory(
        "in the closed form that it starts from", recipe, "set `quantize.low_memory: true`, or a smaller `quantize.batch_tokens`"
    ):
        if isinstance(closed, Gptq):
            begun = [module for block in _blocks(source, closed, data, compute, 0, []) for module in block.modules]
    fewer = "take fewer `texts` and `pairs` a step"
    with _enough_memory("while learning", recipe, fewer if recipe.recompute else f"set `recompute: true`, or {fewer}"):
        outcome = learned(source, recipe, begun, draw, compute, done)
    for block in outcome.blocks:
        _store(block, recipe, done)
    done.flush()
    state = outcome.state
    return Training(steps=state.step, asked=recipe.steps, stopped=state.stopped, history=state.history)


@contextmanager
def _enough_memory(when: str, recipe: Learned, remedy: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise FairgateError(f"out of memory {when}", where=f"recipe: {recipe.method}", remedy=remedy) from None


def _store(block: Block, recipe: Rtn, done: Progress, hidden: Sequence[Tensor] = ()) -> None:
    tensors = {name: tensor for module in block.modules for name, tensor in packed(module.row.name, module.rounded, recipe).items()}
    contributions = [row for module in block.modules for row in module.contributions]
    done.add(block.index, tensors, [module.row for module in block.modules], contributions, hidden)


def quantize_blocks(source: Streamed, recipe: Rtn, compute: Compute, data: Calibration, done: Progress) -> int:
    """Quantize and store blocks from the first that is not done; returns the number of those done: fewer than all if memory ran out."""
    found, last = done.resume(), len(source.blocks) - 1
    reached = found.block
    try:
        with until_out_of_memory():
            blocks = _blocks(source, recipe, data, compute, reached, _hidden(source, recipe, compute, data, done, found))
            del found  # its hidden states keep the file that they were read from on the disk
            for block in blocks:
                _store(block, recipe, done, block.hidden if block.index < last else ())
                reached = block.index + 1
                del block  # its hidden states are the next one's input, and make room batch by batch for its output
    finally:
        done.flush()
    return reached


def _bring_hidden(source: Streamed, recipe: Rtn, compute: Compute, data: Calibration, done: Progress) -> None:
    """Before batches are cut: finished blocks ran on the batches as they are, and so do hidden states through them if there is room."""
    found = done.resume()
    if found.start < found.block:
        with until_out_of_memory():
            done.save_hidden(found.block, _hidden(source, recipe, compute, data, done, found))


def _hidden(source: Streamed, recipe: Rtn, compute: Compute, data: Calibration, done: Progress, found: Reached) -> list[Tensor]:
    """The hidden states before the first block that is not done: as they were written last, then through the blocks finished since."""
    hidden = recut(found.hidden, data.batches)
    if not isinstance(recipe, Gptq) or found.block in (found.start, len(source.blocks)):
        return hidden
    return replay(source, recipe, data, compute, range(found.start, found.block), hidden, done.packed)


def _blocks(source: Streamed, recipe: Rtn, data: Calibration, compute: Compute, start: int, hidden: list[Tensor]) -> Iterator[Block]:
    if isinstance(recipe, Gptq):
        return gptq(source, recipe, data, compute, start, hidden)
    return rtn(source, recipe, start)


def _inputs(recipe: Rtn, base: Path, calibration: Path) -> dict[str, str | None]:
    """Digests of what is read; None for data that the recipe does not use."""
    closed = recipe.closed_form() if isinstance(recipe, Learned) else recipe
    names = {"pairs.jsonl", "text.jsonl"} if isinstance(closed, Gptq) else set()
    names |= set(files(recipe)) if isinstance(recipe, Learned) else set()

    def digest(kind: str) -> str | None:
        found = {name: sha256_file(calibration / name) for name in sorted(names) if ("pairs" in name) == (kind == "pairs")}
        return next(iter(found.values())) if len(found) == 1 else sha256_json(found) if found else None

    bases = {"base_digest": sha256_folder(base), "base_weight_digest": weight_digest(base)}
    return {**bases, "pairs_digest": digest("pairs"), "text_digest": digest("text")}


def _code() -> str:
    """Digest of the code that the weights depend on: an unfinished run is not gone on with by another version of it."""
    root = Path(__file__).parents[2]
    parts = ("fairgate/contracts", "fairgate/support", "stages/quantize")
    code = [path for part in parts for path in sorted((root / part).rglob("*.*")) if path.suffix != ".pyc"]
    return sha256_json({path.relative_to(root).as_posix(): sha256_file(path) for path in code})


def _calibration(recipe: Rtn, run: Run, base: Path, folder: Path) -> tuple[Calibration, dict[str, int], list[str]]:
    """Batches for a recipe, what they count, and what a reader of the record should know."""
    recipe = recipe.closed_form() if isinstance(recipe, Learned) else recipe
    if not isinstance(recipe, Gptq):
        return Calibration([], 0), {"pairs": 0, "texts": 0, "tokens": 0}, []
    pairs, texts = read_records(Pair, folder / "pairs.jsonl"), read_records(Text, folder / "text.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    alignment = recipe.alignment if isinstance(recipe, FairGptq) else Alignment.aligned
    group_by = recipe.group_by if isinstance(recipe, FairGptq) else "bias_type"
    encoded = encode_pairs(pairs, tokenizer, alignment, group_by)
    groups = {group: index for index, group in enumerate(sorted({pair.group for pair in encoded}))}
    pad = pad_token(tokenizer)
    pair_part = list(pair_batches(encoded, alignment, pad, run.batch_tokens, groups))
    text_part = list(text_batches(encode_texts(texts, tokenizer), pad, run.batch_tokens))
    data = select(recipe, pair_part, text_part, len(groups))
    tokens = sum(int(batch.counts.sum()) for batch in data.batches)
    used_pairs = sum(batch.pairs for batch in data.batches)
    used_texts = sum(batch.sentences for batch in data.batches if batch.M is None)
    notes = start_notes(tokenizer)
    if len(encoded) < len(pairs):
        notes.append(f"alignment {alignment.value} kept {len(encoded)} of {len(pairs)} pairs")
    return data, {"pairs": used_pairs, "texts": used_texts, "tokens": tokens}, notes


def _versions(device: torch.device) -> dict[str, str]:
    """What the numbers depend on besides data and settings."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "device": device.type}
    found |= {package: version_of(package) for package in ("fairgate", "transformers", "safetensors")}
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    return found


@contextmanager
def _device_lock(device: torch.device, gpus: int) -> Iterator[None]:
    """One quantization per GPU: locks that the kernel frees when the process dies, even by kill -9."""
    with ExitStack() as stack:
        for number in range(gpus if device.type == "cuda" else 0):
            # Its own name, not its number: two processes may each be shown one GPU, which is number 0 to both.
            path = Path(".fairgate") / f"gpu-{torch.cuda.get_device_properties(number).uuid}.lock"
            stack.enter_context(locked(path))
        yield
