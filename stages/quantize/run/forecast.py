"""What a quantization will need of disk and memory, from shapes and token counts alone, and whether it is there.

Counted is what stands at the same time at the worst moment, not every temporary: a forecast that exceeds what is free is an error
with a remedy, one that fits is no promise. Measured against forecast: docs/operations.md.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fairgate.support.disk import require_space
from fairgate.support.errors import FairgateError
from stages.quantize.core.pairs import Batch
from stages.quantize.methods.learned.data import Slots
from stages.quantize.methods.learned.method import BLOCK_TEXTS
from stages.quantize.model.calibration_pass import linear, weight_of
from stages.quantize.model.streamed import Streamed
from stages.quantize.settings import Compute, Gptq, Learned, Rtn

_FLOAT = 4
_SQUARES = 10  # [d, d] of one group at once: sums of pairs and text, C, H, B, A, and the factorization's damped matrix, L, R, U
_STACKED = 5  # [r, d] of one group at once: W, target, what is left to round, Q, and Q C
# Copies of a batch's logits in float32 at once, as measured: of passages teacher, student, both logarithms and three products of those.
_LOGITS = {"texts": 7, "triples": 3}
_NO_SLOTS = Slots()
_ROUNDING = 5  # one block in float32 while a step is taken: codes, G, W, W / s, and the gradient of V
MIB = 2**20


@dataclass(frozen=True)
class Forecast:
    """Bytes. cpu, gpu: on top of what is in use now; out: the packed checkpoint; work: the folder of the unfinished run.

    leaner: the setting that needs less memory; fewer: what else makes it less.
    """

    cpu: int
    gpu: int
    out: int
    work: int
    leaner: str = "`quantize.low_memory: true`"
    fewer: str = "fewer `calibrate.texts` need less"


def forecast(source: Streamed, recipe: Rtn, compute: Compute, batches: Sequence[Batch], stored: int, step: Slots = _NO_SLOTS) -> Forecast:
    """The needs of one run; of the model only shapes count.

    Args:
        batches: of a closed form. stored: bytes of the base's weight files. step: of a step of learned rounding.
    """
    if isinstance(recipe, Learned):
        return _learned(source, recipe, compute, forecast(source, recipe.closed_form(), compute, batches, stored), step)
    architecture, blocks = source.architecture, list(source.blocks)
    total = _parameters(source)
    numbers = [sum(parameter.numel() for parameter in block.parameters()) for block in blocks]
    shapes = _shapes(source)
    packed = sum(_packed(name, r, d, recipe) for name, r, d in shapes)
    rest = stored - sum(r * d for _, r, d in shapes) * stored // total
    out = packed + rest
    if not isinstance(recipe, Gptq):
        return Forecast(cpu=max(max(numbers) * _FLOAT, 2 * out), gpu=0, out=out, work=packed)

    slots, largest = sum(batch.ids.numel() for batch in batches), max(batch.ids.numel() for batch in batches)
    item, on_gpu = compute.dtype.itemsize, compute.device.type == "cuda"
    groups = [[weight_of(linear(blocks[0], name)).shape for name in group] for group in architecture.groups]
    hidden = slots * groups[0][0][1] * item  # the first group reads the hidden state
    # Where a batch waits it holds its input of the group, and what the block will still add to: the residual and its normed copy.
    staged = 0 if compute.low_memory else compute.waiting
    held = slots if staged is None else min(slots, largest + sum(batch.ids.numel() for batch in batches[:staged]))
    waiting = held * (max(group[0][1] for group in groups) * item + 2 * hidden // slots)
    solving = max(_SQUARES * group[0][1] ** 2 + _STACKED * sum(r for r, _ in group) * group[0][1] for group in groups) * _FLOAT
    loaded = max(numbers) * item * (2 if on_gpu else 1)  # a GPU gets the next block while it works on this one
    embedding = (total - sum(numbers)) * item
    states = 2 * hidden  # a block's input, which its output replaces batch by batch, and what is being written or copied to be written
    passing = max(embedding + states, loaded + waiting + solving + (0 if on_gpu and compute.low_memory else states))
    # Beside a GPU the CPU holds the copy of the hidden states that is written, and at the end the checkpoint.
    cpu = max(states if compute.low_memory else hidden, 2 * out) if on_gpu else max(passing, 2 * out)
    return Forecast(cpu=cpu, gpu=passing if on_gpu else 0, out=out, work=packed + states)


def _learned(source: Streamed, recipe: Learned, compute: Compute, start: Forecast, step: Slots) -> Forecast:
    """The needs of the steps, where they exceed those of the closed form that they start from."""
    architecture, block, blocks = source.architecture, source.blocks[0], len(source.blocks)
    item, on_gpu, total = compute.dtype.itemsize, compute.device.type == "cuda", _parameters(source)
    shapes = _shapes(source)
    weights = sum(r * d for _, r, d in shapes)
    groups = sum(r * (d // recipe.grid(name).width(d)) for name, r, d in shapes)
    offsets = weights * (_FLOAT if compute.dtype == torch.float32 else 2)
    state = offsets + groups * _FLOAT
    # Beside the model Q, its gradient and V; three numbers a group; of a closed form its codes and the points that round to them.
    begun = 0 if recipe.start == "rtn" else weights * (1 + _FLOAT)
    standing = total * item + 2 * weights * item + offsets + 3 * groups * _FLOAT + begun
    # For the gradient every linear module's input and output are kept, and two norms' inputs in float32.
    r_d = [[weight_of(linear(block, name)).shape for name in group] for group in architecture.groups]
    hidden = r_d[0][0][1]
    token = item * sum(group[0][1] + sum(r for r, _ in group) for group in r_d) + 2 * _FLOAT * hidden
    token = token + blocks * hidden * item if recipe.recompute else blocks * token
    logits = source.model.config.vocab_size * _FLOAT
    # The teacher's hidden states, and in float32 how far the student's are from them.
    features = {"texts": blocks * hidden * (item + _FLOAT) if recipe.features else 0}
    both = [count * (token + logits * _LOGITS[kind] + features.get(kind, 0)) for kind, count in vars(step).items()]
    # What the blocks are distilled on: the first one's input and every output, twice while they are joined.
    passages = BLOCK_TEXTS * recipe.texts * recipe.text_tokens if recipe.block_steps else 0
    distilling = passages * hidden * item * 2 * (blocks + 1)
    # A state is copied before it is written.
    learning = standing + max(*both, distilling, _ROUNDING * _FLOAT * weights // blocks, 0 if on_gpu else state)
    cpu = max(start.cpu, total * item, state) if on_gpu else max(start.cpu, learning)
    work = max(2 * state, state + sum(_packed(name, r, d, recipe) for name, r, d in shapes))  # while the state is replaced there are two
    gpu = max(start.gpu, learning) if on_gpu else 0
    return Forecast(cpu, gpu, start.out, work, "`recompute: true` in the recipe", "fewer `texts` or `pairs` a step need less")


def _parameters(source: Streamed) -> int:
    return sum(parameter.numel() for parameter in source.parameters().values())


def _shapes(source: Streamed) -> list[tuple[str, int, int]]:
    """Full name, outputs and inputs of every linear module."""
    return [
        (f"{source.architecture.blocks}.{index}.{name}", *weight_of(linear(block, name)).shape)
        for index, block in enumerate(source.blocks)
        for name in source.architecture.modules
    ]


def fitting(source: Streamed, recipe: Rtn, compute: Compute, batches: Sequence[Batch], stored: int, limit: float) -> int:
    """How many batches, from the first, may wait inside a block for the forecast to stay below `limit` bytes of GPU memory."""

    def beyond(count: int) -> bool:
        return forecast(source, recipe, replace(compute, waiting=count), batches, stored).gpu > limit

    return max(bisect_left(range(len(batches) + 1), True, key=beyond) - 1, 0)


def free_memory(device: torch.device) -> int:
    """Bytes of the GPU that are free for us: what torch has cached of it is."""
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def require_resources(needs: Forecast, lean: Forecast, out: Path, work: Path, device: torch.device) -> None:
    """Raise FairgateError unless disk and memory suffice.

    Args:
        lean: the needs with the `leaner` setting, for the remedy.
    """
    left = max(needs.work - sum(file.stat().st_size for file in work.glob("*")), 0)
    if _disk(out) == _disk(work):
        require_space(out, needs.out + left, what="the packed checkpoint and the blocks finished on the way")
    else:
        require_space(out, needs.out, what="the packed checkpoint")
        require_space(work, left, what="the blocks finished on the way")
    if device.type == "cuda":
        _require_memory("GPU memory", needs, needs.gpu, lean.gpu, free_memory(device))
    _require_memory("memory", needs, needs.cpu, lean.cpu, available())


def _require_memory(what: str, needs: Forecast, needed: int, lean: int, free: int | None) -> None:
    if free is None or needed <= free:
        return
    remedy = f"end what else needs it, or use a larger machine; {needs.fewer}"
    if lean <= free:
        remedy = f"set {needs.leaner}, which needs about {lean / MIB:,.0f} MiB"
    raise FairgateError(
        f"no {what} for this run: about {needed / MIB:,.0f} MiB needed, {free / MIB:,.0f} MiB free", where="quantize", remedy=remedy
    )


def available(root: Path = Path("/")) -> int | None:
    """Bytes of memory that a process can still get: of the machine or, in a container, of its limit; None where Linux does not say."""
    try:
        fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    except OSError:
        return None
    free = int(fields["MemAvailable"].split()[0]) * 1024
    group = root / "sys/fs/cgroup"
    try:
        limit, used = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
    except (OSError, ValueError, KeyError):  # no limit (`max`), or no such files
        return free
    return min(free, limit - used + int(cached))


def _packed(name: str, r: int, d: int, recipe: Rtn) -> int:
    """Bytes of qweight, qzeros, scales and g_idx of one module."""
    grid = recipe.grid(name)
    groups = d // grid.width(d)
    return r * d * grid.bits // 8 + r * groups * grid.bits // 8 + 2 * r * groups + 4 * d


def _disk(path: Path) -> int:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path.stat().st_dev
