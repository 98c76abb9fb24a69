"""Whether the disk and memory that a run will need are there, before a weight is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fairgate.support.disk import require_space
from fairgate.support.errors import FairgateError
from stages.quantize.methods.base import Forecast

MIB = 2**20


@contextmanager
def bounded(device: torch.device, gib: float | None) -> Iterator[None]:
    """No more than `gib` of every GPU's memory; where that is reached, what torch has cached is
    given back before it is an error.
    """
    if gib is None or device.type != "cuda":
        yield
        return
    gpus = range(torch.cuda.device_count())
    for gpu in gpus:
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / torch.cuda.mem_get_info(gpu)[1]), gpu)
    try:
        yield
    finally:
        for gpu in gpus:
            torch.cuda.set_per_process_memory_fraction(1.0, gpu)


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
    """Bytes of memory that a process can still get: of the machine or, in a container, of its
    limit; None where Linux does not say.
    """
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


def _disk(path: Path) -> int:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path.stat().st_dev
