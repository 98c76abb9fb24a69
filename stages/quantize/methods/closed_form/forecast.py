"""What a calibration pass will need of disk and memory, from shapes and token counts alone.

Counted is what stands in memory at the worst moment, not every temporary: a forecast that exceeds
what is free is an error with a remedy; one that fits is no promise. docs/operations.md compares
forecasts with measurements.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from stages.quantize.core.compute import Compute
from stages.quantize.core.pairs import Batch
from stages.quantize.methods.base import Forecast
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe
from stages.quantize.methods.shared.sizes import FLOAT, block_parameters, checkpoint_bytes, group_shapes, parameters
from stages.quantize.model.streamed import Streamed

_SQUARES = 10  # [d, d] of one group at once: sums of pairs and text, C, H, B, A, and the factorization's damped matrix, L, R, U
_STACKED = 5  # [r, d] of one group at once: W, target, what is left to round, Q, and Q C


def forecast(source: Streamed, recipe: CalibratedRecipe, compute: Compute, batches: Sequence[Batch]) -> Forecast:
    """The needs of one run; of the model only shapes count."""
    numbers, groups = block_parameters(source), group_shapes(source)
    packed, out = checkpoint_bytes(source, recipe)
    slots, largest = sum(batch.ids.numel() for batch in batches), max(batch.ids.numel() for batch in batches)
    item, on_gpu = compute.dtype.itemsize, compute.device.type == "cuda"
    hidden = slots * groups[0][0][1] * item  # the first group reads the hidden state
    # Where a batch waits it holds its input of the group, and what the block will still add to: the
    # residual and its normed copy.
    staged = 0 if compute.low_memory else compute.waiting
    held = slots if staged is None else min(slots, largest + sum(batch.ids.numel() for batch in batches[:staged]))
    waiting = held * (max(group[0][1] for group in groups) * item + 2 * hidden // slots)
    solving = max(_SQUARES * group[0][1] ** 2 + _STACKED * sum(r for r, _ in group) * group[0][1] for group in groups) * FLOAT
    loaded = max(numbers) * item * (2 if on_gpu else 1)  # a GPU gets the next block while it works on this one
    embedding = (parameters(source) - sum(numbers)) * item
    states = 2 * hidden  # a block's input, which its output replaces batch by batch, and what is being written or copied to be written
    passing = max(embedding + states, loaded + waiting + solving + (0 if on_gpu and compute.low_memory else states))
    # Beside a GPU the CPU holds the copy of the hidden states that is written, and at the end the
    # checkpoint.
    cpu = max(states if compute.low_memory else hidden, 2 * out) if on_gpu else max(passing, 2 * out)
    return Forecast(cpu=cpu, gpu=passing if on_gpu else 0, out=out, work=packed + states)


def batches_that_fit(source: Streamed, recipe: CalibratedRecipe, compute: Compute, batches: Sequence[Batch], limit: float) -> int:
    """How many batches, from the first, may wait inside a block for the forecast to stay below
    `limit` bytes of GPU memory.
    """

    def exceeds(count: int) -> bool:
        return forecast(source, recipe, replace(compute, waiting=count), batches).gpu > limit

    return max(bisect_left(range(len(batches) + 1), True, key=exceeds) - 1, 0)
