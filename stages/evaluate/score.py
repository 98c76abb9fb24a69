"""Log-likelihoods of options: rows of one length together, the vocabulary only at the scored places, no wait for the device in between."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fairgate.support.devices import out_of_memory
from fairgate.support.errors import FairgateError
from fairgate.support.log import log
from stages.evaluate.model import Model
from stages.evaluate.rows import GREEDY, Ints, Row, rows_of
from stages.evaluate.tokens import Encoded

Batch = list[Row]

# Batches under way at once: while one runs, the next is made ready and the one before is read.
_AHEAD = 1
# Rows of logits held at once: 100 MB at a vocabulary of 49,152 in float32; a GPU takes as many as fit in 2 GiB with two temporaries.
_LOGIT_ROWS, _LOGIT_BYTES = 512, 2**31


def score(
    model: Model, encoded: Sequence[Encoded], *, batch_tokens: int, done: Callable[[int], None] = lambda n: None
) -> list[list[float]]:
    """Summed log-likelihood (nats) of every option of every item.

    Results do not depend on the batch beyond rounding: rows are padded on the right, where a causal model cannot see.

    Args:
        batch_tokens: rows x longest row of one forward pass; a longer single row is a batch of its own.
        done: told after each batch how many options were scored.
    Raises:
        FairgateError: logits that are not finite; the message names the item. A single row for which memory does not suffice.
    """
    batches = batches_of(encoded, model.max_packed, batch_tokens)
    sums = [[0.0] * len(e.requests) for e in encoded]
    for number, values, _ in likelihoods(model, batches, range(len(batches)), encoded):
        scatter(batches[number], values, sums)
        done(len(values))
    return sums


def batches_of(encoded: Sequence[Encoded], max_packed: int | None, batch_tokens: int) -> list[Batch]:
    """Rows in batches of one kind and about one length, the largest first; a function of the items and of `batch_tokens` alone."""
    rows = rows_of(encoded, max_packed)
    # Rows without branches need no mask, which is the faster attention: they do not share a batch with the others.
    rows.sort(key=lambda row: (row.branches, -len(row.tokens), row.tokens))
    batches: list[Batch] = []
    width = 0
    for row in rows:
        fits = batches and row.branches == batches[-1][0].branches and (len(batches[-1]) + 1) * width <= batch_tokens
        # A batch of some size is not filled up with rows that would be padded by a quarter.
        if fits and (4 * len(row.tokens) >= 3 * width or 8 * len(batches[-1]) * width < batch_tokens):
            batches[-1].append(row)
        else:
            batches.append([row])
            width = len(row.tokens)
    return batches


def scatter(batch: Batch, values: Sequence[float], sums: list[list[float]]) -> None:
    """Put the values of a batch into their places, sums[item][option]."""
    options = [(i, k) for row in batch for i, k, _, _ in row.reads]
    for (i, k), value in zip(options, values, strict=True):
        sums[i][k] = value


def likelihoods(
    model: Model, batches: Sequence[Batch], wanted: Iterable[int], encoded: Sequence[Encoded], pieces: int = 1
) -> Iterator[tuple[int, list[float], int]]:
    """For each wanted batch: its number, a value for every read of its rows in order, and in how many pieces it ran.

    Where memory runs out, this batch and all later ones run in twice as many pieces.
    """
    waiting: deque[tuple[int, list[_Launched], int]] = deque()

    def read() -> tuple[int, list[float], int]:
        number, launched, pieces = waiting.popleft()
        values = [value for part in launched for value in part.read()]
        _require_finite(batches[number], values, encoded)
        return number, values, pieces

    for number in wanted:
        batch = batches[number]
        while True:
            size = math.ceil(len(batch) / pieces)
            try:
                launched = [_launch(model, batch[start : start + size]) for start in range(0, len(batch), size)]
                break
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if size == 1:
                    raise FairgateError(
                        f"memory does not suffice for one row of {len(batch[0].tokens)} tokens",
                        where=f"item {encoded[batch[0].reads[0][0]].item.id!r}",
                        remedy="use a larger device, a 16-bit evaluate.dtype, or take the task out of evaluate.tasks",
                    ) from None
            pieces *= 2
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
            log.warning("out of memory: batches are scored in %d pieces from here on", pieces)
        waiting.append((number, launched, pieces))
        if len(waiting) > _AHEAD:
            yield read()
    while waiting:
        yield read()


def _require_finite(batch: Batch, values: list[float], encoded: Sequence[Encoded]) -> None:
    options = ((i, k) for row in batch for i, k, _, _ in row.reads)
    for (i, k), value in zip(options, values, strict=True):
        if not math.isfinite(value):
            raise FairgateError(
                f"the log-likelihood of option {k} is {value}",
                where=f"item {encoded[i].item.id!r}",
                remedy="the weights or the dtype overflow: evaluate in float32, and look at the quantization record",
            )


@dataclass(frozen=True)
class _Launched:
    """Log-probabilities on their way to the host. `owners` [n]: which read each belongs to, ascending from 0 to `reads` - 1."""

    logprobs: Tensor
    arrived: torch.cuda.Event | None
    owners: Ints
    reads: int

    def read(self) -> list[float]:
        """The sum of every read, float64."""
        if self.arrived:
            self.arrived.synchronize()
        return np.bincount(self.owners, self.logprobs.double().numpy(), self.reads).tolist()


@torch.inference_mode()
def _launch(model: Model, rows: Sequence[Row]) -> _Launched:
    """Put one forward pass on the device's queue."""
    branches = rows[0].branches
    # Attention on a GPU copies a mask whose rows are no multiple of 16 long, in every layer.
    width = _rounded(len(rows[0].tokens), 16 if branches and model.device.type == "cuda" else 1)
    names = ("tokens", "positions", "ends") if branches else ("tokens",)
    grid = np.empty((len(names), len(rows), width), dtype=np.int64)
    for layer, name in zip(grid, names, strict=True):
        for line, row in zip(layer, rows, strict=True):
            line[: len(row.tokens)] = getattr(row, name)
            line[len(row.tokens) :] = width if name == "ends" else 0  # a pad sees itself: attention to nothing is no number
    reads = [(b * width, places, option) for b, row in enumerate(rows) for _, _, places, option in row.reads]
    flat = np.array([base + place for base, places, _ in reads for place in places])
    targets = np.array([token for _, _, option in reads for token in option])
    owners = np.repeat(np.arange(len(reads)), [len(places) for _, places, _ in reads])
    where, index = np.unique(flat, return_inverse=True)
    order = np.argsort(index, kind="stable")
    parts = [grid.ravel(), where, index[order], targets[order]]
    on_device = _upload(np.concatenate(parts), model.device).split([len(part) for part in parts])
    layers = on_device[0].view(grid.shape)
    hidden = model.hidden(*layers).flatten(0, 1)[on_device[1]]
    logprobs = _logprobs(model, hidden, index[order], on_device[2], on_device[3], best=bool((targets == GREEDY).any()))
    if model.device.type != "cuda":
        return _Launched(logprobs, None, owners[order], len(reads))
    found = torch.empty(logprobs.shape, dtype=logprobs.dtype, pin_memory=True).copy_(logprobs, non_blocking=True)
    return _Launched(found, torch.cuda.current_stream(model.device).record_event(), owners[order], len(reads))


def _logprobs(model: Model, hidden: Tensor, places: Ints, index: Tensor, targets: Tensor, *, best: bool) -> Tensor:
    """Log-probability [n] float32 of each target after hidden state `index`, in whose order they are; `places` is it on the host.

    best: some targets are GREEDY.
    """
    vocabulary = model.network.get_output_embeddings().weight.shape[0]
    size = _LOGIT_ROWS if model.device.type == "cpu" else max(_LOGIT_ROWS, _LOGIT_BYTES // (12 * vocabulary))
    starts = range(0, len(hidden) + size, size)
    parts = []
    for (start, stop), (low, high) in zip(pairwise(starts), pairwise(np.searchsorted(places, starts)), strict=True):
        logits = model.logits(hidden[start:stop]).float()
        row, target = index[low:high] - start, targets[low:high]
        reached = logits[row, target.clamp(min=0)]
        if best:
            reached = reached.where(target != GREEDY, logits.amax(1)[row])
        parts.append(reached - logits.logsumexp(1)[row])
    return torch.cat(parts)


def _upload(values: Ints, device: torch.device) -> Tensor:
    found = torch.from_numpy(values)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found.to(device)


def _rounded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
