"""Out of memory: smaller batches instead of a lost run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fairgate.support.devices import out_of_memory
from stages.quantize.core.pairs import Batch


@contextmanager
def bounded(device: torch.device, gib: float | None) -> Iterator[None]:
    """No more than `gib` of every GPU's memory; where that is reached, what torch has cached is given back before it is an error."""
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


@contextmanager
def until_out_of_memory() -> Iterator[None]:
    """Ends what is done in it where memory runs out, without an error."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise


def most_slots(batches: Sequence[Batch]) -> int:
    """Token slots of the largest batch."""
    return max((batch.ids.numel() for batch in batches), default=0)


def recut(hidden: Sequence[Tensor], batches: Sequence[Batch]) -> list[Tensor]:
    """Hidden states of the same sentences, cut into other batches.

    Batches of any size hold the sentences in one order (of their length), so rows are dealt out again; only pads are dropped or added.

    Args:
        hidden: [rows, L, d] for every old batch, or none. batches: the new ones.
    """
    if not hidden or [state.shape[:2] for state in hidden] == [batch.ids.shape for batch in batches]:
        return list(hidden)
    rows = iter([row for state in hidden for row in state])
    found = []
    for batch in batches:
        count, length = batch.ids.shape
        state = hidden[0].new_zeros(count, length, hidden[0].shape[-1])
        for at in range(count):
            row = next(rows)[:length]
            state[at, : len(row)] = row
        found.append(state)
    return found
