"""How fast a 7B-shaped Llama is quantized on one GPU; quantize_7b_peer.py is the comparison with
GPTQModel.

    python -m benchmarks.quantize_7b --model /tmp/m7b --parts pairs,text,low,sweep --runs 3

The model is made on the spot: 32 blocks, hidden 4096, MLP 11008, random weights with heavy-tailed
rows and a few large columns. Its files lie in the page cache. Blocks go the way of the command line
(`closed_form.retry.Quantizer`): finished ones are stored in a work folder, and hidden
states beside them, so that a killed run could go on. The timer runs from the open model (files
mapped, no weight read) until the packed tensors of every block lie there: reading the weights,
embedding, all forward passes, sums, factors, rounding, packing, storing; `load_to_saved` goes on
until the checkpoint is written and the work folder gone. Only `sweep` keeps its results in memory.
Data: 2,048 pairs x 2 x 24 tokens; `text` adds 128 x 2,048. Recipe: 4 bits symmetric, groups of 128,
true-sequential.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks import records
from benchmarks.random_llama import VOCABULARY, make_model
from benchmarks.sweep import sweep
from fairgate.support.devices import pick_device, pick_dtype
from stages.quantize.core.compute import Compute
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import EncodedPair, pair_batches, text_batches
from stages.quantize.methods import METHODS
from stages.quantize.methods.closed_form.calibration import Calibration
from stages.quantize.methods.closed_form.forecast import batches_that_fit
from stages.quantize.methods.closed_form.method import ClosedForm
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe
from stages.quantize.methods.closed_form.retry import Quantizer
from stages.quantize.methods.shared.modules import packed
from stages.quantize.model.architectures import architecture_of
from stages.quantize.model.streamed import Streamed
from stages.quantize.run.export import write_checkpoint
from stages.quantize.run.resources import bounded, free_memory
from stages.quantize.run.store import BlockStore, block_store
from stages.quantize.settings import parse_recipe

PAIRS, SIDE, TEXTS, LENGTH = 2048, 24, 128, 2048
PLAIN: dict[str, Any] = {"method": "gptq", "bits": 4, "group_size": 128, "symmetric": True}
FAIR: dict[str, Any] = {**PLAIN, "method": "fair_gptq", "alpha": 0.1}
BATCH_TOKENS, LOW_BATCH_TOKENS = 32768, 8192


def tokens(texts: int = TEXTS) -> tuple[list[EncodedPair], list[list[int]]]:
    """Random pairs that differ in two tokens near their start, and random texts."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(3, VOCABULARY, (PAIRS, SIDE + 2), generator=generator).tolist()
    pairs = [EncodedPair(str(i), "a", row[:SIDE], [*row[:5], *row[SIDE:], *row[7:SIDE]]) for i, row in enumerate(rows)]
    return pairs, torch.randint(3, VOCABULARY, (texts, LENGTH), generator=generator).tolist()


def calibration(*, texts: int = 0, batch_tokens: int = BATCH_TOKENS) -> Calibration:
    pairs, rows = tokens(texts)
    batches = list(pair_batches(pairs, Alignment.aligned, 2, batch_tokens, {"a": 0}))
    return Calibration([*batches, *text_batches(rows, 2, batch_tokens)], 1)


def recipe(settings: dict[str, Any], **changes: Any) -> CalibratedRecipe:
    return cast(CalibratedRecipe, parse_recipe({**settings, **changes}, where="benchmark"))


@contextmanager
def quantized(
    model: Path, settings: CalibratedRecipe, data: Calibration, compute: Compute, work: Path | None
) -> Iterator[tuple[Streamed, BlockStore]]:
    """The open model, and its blocks stored in a folder below `work` (default: beside the model)
    that is gone afterwards.
    """
    source = Streamed(model, architecture_of("llama"))
    quantized_blocks = partial(cast(ClosedForm[Any], METHODS[settings.method]).blocks, settings, source)
    # The time makes every run one of its own: none goes on from another.
    with block_store((work or model.parent) / "unfinished", {"begun": time.time()}, settings) as store:
        if Quantizer(quantized_blocks, settings, source, store).blocks(compute, data) < len(source.blocks):
            raise torch.OutOfMemoryError("out of memory, and a benchmark does not cut its batches")
        yield source, store


def compute_here() -> Compute:
    """The GPU in bfloat16; without one the CPU in float32, to try the script."""
    device = pick_device("auto", parameter="device")
    return Compute(device, pick_dtype("auto", device))


def quantize(model: Path, settings: CalibratedRecipe, data: Calibration, compute: Compute, work: Path | None = None) -> float:
    """Seconds from the open model until all packed tensors are stored."""
    started = time.perf_counter()
    with quantized(model, settings, data, compute, work):
        return time.perf_counter() - started


def save(model: Path, settings: CalibratedRecipe, data: Calibration, compute: Compute, work: Path | None, stored: list[float]) -> float:
    """Seconds until the checkpoint is written and the unfinished run's folder gone; `stored` gets
    those until all tensors are stored.
    """
    out = model.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    started = time.perf_counter()
    with quantized(model, settings, data, compute, work) as (source, store):
        stored.append(time.perf_counter() - started)
        tensors = dict(store.tensors(len(source.blocks)))
        modules = {name.rsplit(".", 1)[0] for name in tensors}
        write_checkpoint(model, out, source.tensors(), tensors.items(), modules, settings, source.architecture)
    return time.perf_counter() - started


def file_system(folder: Path) -> str:
    """Its type, as `stat` names it."""
    return subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True)
class Peak:
    """GiB of GPU memory: what the process held, and what was in use of it."""

    reserved_gib: float
    allocated_gib: float


def timed(run: Callable[[], Any]) -> tuple[float, Peak, Any]:
    """Seconds, peak memory, result."""
    if not torch.cuda.is_available():
        seconds, result = records.timed(run)
        return seconds, Peak(0, 0), result
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    seconds, result = records.timed(run)
    return seconds, Peak(torch.cuda.max_memory_reserved() / 2**30, torch.cuda.max_memory_allocated() / 2**30), result


def profile(model: Path, compute: Compute) -> None:
    """Print where the GPU's time goes over a few blocks, and what the program does while the GPU
    waits.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    with profiled(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        quantize(model, recipe(FAIR, calibration="pairs"), calibration(), compute)
    print(profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=50), flush=True)
    events = list(profiler.events() or [])
    on_gpu = [e for e in events if e.device_type == DeviceType.CUDA and "Memcpy HtoD" not in e.name]
    busy = sorted((e.time_range.start, e.time_range.end) for e in on_gpu)
    calls = sorted((e.time_range.start, e.time_range.end, e.name) for e in events if e.device_type == DeviceType.CPU)
    if not busy:
        return
    waits: dict[str, float] = {}
    reached = busy[0][0]
    for start, end in busy:
        if start > reached + 20:  # microseconds
            middle = (start + reached) / 2
            name = min(((b - a, name) for a, b, name in calls if a <= middle <= b), default=(0.0, "python"))[1]
            waits[name] = waits.get(name, 0.0) + start - reached
        reached = max(reached, end)
    total = reached - busy[0][0]
    print(f"GPU waits {sum(waits.values()) / 1e3:.0f} of {total / 1e3:.0f} ms:")
    for name, length in sorted(waits.items(), key=lambda item: -item[1])[:14]:
        print(f"  {length / 1e3:8.1f} ms {name}")


@dataclass
class Benchmark:
    """The parts of one run; each times what it names and records it."""

    arguments: argparse.Namespace
    compute: Compute
    figures: records.Records
    model: Path
    few: int = PAIRS * 2 * SIDE  # tokens of the pairs
    many: int = PAIRS * 2 * SIDE + TEXTS * LENGTH  # with the text

    @property
    def stored(self) -> str:
        """Where the finished blocks and hidden states go."""
        return f"finished blocks and hidden states written to {file_system(self.arguments.work or self.arguments.model.parent)}"

    def quantize(self, settings: CalibratedRecipe, data: Calibration, compute: Compute) -> float:
        return quantize(self.model, settings, data, compute, self.arguments.work)

    def repeat(self, name: str, run: Callable[[], float], tokens: int, target: float | None = None, **more: Any) -> float:
        """Record the seconds that the runs return; their median."""
        timings = [timed(run)[1:] for _ in range(self.arguments.runs)]
        more |= {kind: round(max(getattr(peak, kind) for peak, _ in timings), 2) for kind in ("reserved_gib", "allocated_gib")}
        return self.figures.add(name, [seconds for _, seconds in timings], "s", target=target, tokens=tokens, work=self.stored, **more)

    def peak_of(self, name: str) -> float:
        return float(self.figures.detail(name, "reserved_gib"))

    def waiting(self, data: Calibration, limit: float) -> int:
        """Batches whose inputs fit into `limit` bytes."""
        return batches_that_fit(Streamed(self.model, architecture_of("llama")), recipe(FAIR), self.compute, data.batches, limit)

    def pairs(self) -> None:
        """The cost of the fairness term on pairs alone."""
        data, silent = calibration(), replace(self.compute, diagnostics=False)
        everywhere, out = (recipe(FAIR, modules=modules, calibration="pairs") for modules in ("all", "out"))
        plain_recipe = recipe(PLAIN, calibration="pairs")
        plain = self.repeat("quantize_7b_plain_s", lambda: self.quantize(plain_recipe, data, self.compute), self.few)
        runs = {
            "quantize_7b_pairs_s": (everywhere, self.compute, "all seven", 14),
            "quantize_7b_pairs_term_alone_s": (everywhere, silent, "all seven, without diagnostics", None),
            "quantize_7b_pairs_out_s": (out, self.compute, "o and down", 14),
            "quantize_7b_pairs_out_term_alone_s": (out, silent, "o and down, without diagnostics", None),
        }
        costs = {}
        for name, (settings, compute, modules, target) in runs.items():
            seconds = self.repeat(name, partial(self.quantize, settings, data, compute), self.few, target, modules=modules)
            costs[modules] = seconds / plain - 1
        share = costs["o and down, without diagnostics"]
        self.figures.add("fairness_overhead", [share], "of plain GPTQ's time", target=0.15, tokens=self.few, all_measured=costs)

    def text(self) -> float:
        """Pairs and text within `--gib` of memory, from the opened model to the saved checkpoint;
        seconds without saving.
        """
        data, gib = calibration(texts=TEXTS), self.arguments.gib
        waiting = self.waiting(data, gib * 2**30)
        compute = replace(self.compute, waiting=waiting)
        what = {"modules": "all seven", "batches_waiting": [waiting, len(data.batches)]}
        inner: list[float] = []
        with bounded(compute.device, gib):
            whole = partial(save, self.model, recipe(FAIR), data, compute, self.arguments.work, inner)
            self.repeat("load_to_saved_7b_s", whole, self.many, 60, **what)
        seconds = self.figures.add("quantize_7b_pairs_and_text_s", inner, "s", target=35, tokens=self.many, work=self.stored, **what)
        self.figures.add("peak_gib", [self.peak_of("load_to_saved_7b_s")], "GiB reserved", target=22.35, tokens=self.many, **what)
        return seconds

    def low(self, fast: float) -> None:
        """The same in low memory, against `fast` seconds."""
        data = calibration(texts=TEXTS, batch_tokens=LOW_BATCH_TOKENS)
        compute = replace(self.compute, low_memory=True)
        with bounded(compute.device, 7.4):
            run = partial(self.quantize, recipe(FAIR), data, compute)
            slow = self.repeat("low_memory_s", run, self.many, batch_tokens=LOW_BATCH_TOKENS)
        self.figures.add("low_memory_peak_gib", [self.peak_of("low_memory_s")], "GiB reserved", target=7.45, tokens=self.many)
        self.figures.add("low_memory_slowdown", [slow / fast], "x", target=2, tokens=self.many)

    def sweep(self) -> None:
        """Eight alphas from one calibration pass."""
        data, silent = calibration(texts=TEXTS), replace(self.compute, diagnostics=False)
        recipes = [recipe(FAIR, alpha=alpha, collection="parallel") for alpha in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)]
        eight = [timed(lambda: run_sweep(self.model, recipes, data, silent))[0] for _ in range(self.arguments.runs)]
        seconds = [value / 8 for value in eight]
        modules = "all seven, without diagnostics"
        self.figures.add("sweep_per_alpha_s", seconds, "s, the calibration pass shared out", target=8, tokens=self.many, modules=modules)

    def gpus(self) -> None:
        """All GPUs against one."""
        texts, device = self.arguments.texts, self.compute.device
        data = calibration(texts=texts)
        waiting = self.waiting(data, free_memory(device) if device.type == "cuda" else float("inf"))
        single = replace(self.compute, waiting=waiting)
        several = replace(single, others=tuple(torch.device("cuda", number) for number in range(1, torch.cuda.device_count())))
        what: dict[str, Any] = {"modules": "all seven", "batches_waiting": [waiting, len(data.batches)]}
        mark, tokens = "" if texts == TEXTS else f"_{texts}_texts", self.few + texts * LENGTH
        alone = self.repeat(f"one_gpu{mark}_s", lambda: self.quantize(recipe(FAIR), data, single), tokens, **what)
        what["gpus"] = 1 + len(several.others)
        shared = self.repeat(f"two_gpus{mark}_s", lambda: self.quantize(recipe(FAIR), data, several), tokens, **what)
        self.figures.add(f"two_gpu_speedup{mark}", [alone / shared], "x", target=1.6, tokens=tokens, **what)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--parts", default="pairs,text,low,sweep")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--mlp", type=int, default=11008)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--texts", type=int, default=TEXTS, help="of `gpus`; other figures are of 128")
    parser.add_argument("--work", type=Path, help="for unfinished runs, on the disk to be timed; default: beside the model")
    parser.add_argument("--gib", type=float, default=22.0, help="GPU memory for pairs and text")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quantize_7b.json"))
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    parts = arguments.parts.split(",")
    compute = compute_here()
    (arguments.work or arguments.model.parent).mkdir(parents=True, exist_ok=True)
    shape = f"Llama, {arguments.layers} blocks, hidden {arguments.hidden}, MLP {arguments.mlp}, 4 bits, groups of 128"
    model = arguments.model
    if not (model / "model.safetensors.index.json").exists():
        seconds, _, model = timed(lambda: make_model(model, arguments.layers, arguments.hidden, arguments.mlp))
        print(f"model made in {seconds:.1f} s", flush=True)
    name = "Llama of 7B shape, random weights"
    benchmark = Benchmark(arguments, compute, records.Records(arguments.out, "quantize_7b", shape=shape, model=name), model)
    warm = make_model(arguments.model.parent / "warm", 2, arguments.hidden, arguments.mlp)
    settings = recipe(FAIR, modules="all", calibration="pairs")
    print(f"first blocks, with compilation: {timed(lambda: quantize(warm, settings, calibration(), compute))[0]:.1f} s", flush=True)
    if "pairs" in parts:
        benchmark.pairs()
    if "text" in parts:
        fast = benchmark.text()
        if "low" in parts:
            benchmark.low(fast)
    if "sweep" in parts:
        benchmark.sweep()
    if "gpus" in parts:
        benchmark.gpus()
    if "profile" in parts:
        profile(warm, compute)


def run_sweep(model: Path, recipes: list[CalibratedRecipe], data: Calibration, compute: Compute) -> None:
    """All recipes from one pass, each packed."""
    for blocks in sweep(Streamed(model, architecture_of("llama")), recipes, data, compute):
        for block, settings in zip(blocks, recipes, strict=True):
            for module in block.modules:
                packed(module, settings)


if __name__ == "__main__":
    main()
