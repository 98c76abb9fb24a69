"""Log-likelihoods of options.

Rows of one length are batched, logits are computed at scored places only, and the host prepares the
next batch while the device computes.
"""

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
from stages.evaluate.rows import GREEDY, Ints, Packing, Row, rows_of
from stages.evaluate.tokens import Encoded

Batch = list[Row]

# Batches in flight: while one runs, the next is prepared and the one before is read.
_AHEAD = 1
# Rows of logits held at once: 100 MB at a vocabulary of 49,152 in float32. A GPU takes as many as
# fit into 2 GiB with two temporaries.
_LOGIT_ROWS, _LOGIT_BYTES = 512, 2**31


def score(
    model: Model, encoded: Sequence[Encoded], *, batch_tokens: int, done: Callable[[int], None] = lambda n: None
) -> list[list[float]]:
    """Summed log-likelihood (nats) of every option of every item.

    Results do not depend on the batch beyond rounding: rows are padded on the right, where a causal
    model cannot see, and no batch mixes regimes of positions (see `Packing`).

    Args:
        batch_tokens: rows x longest row of one forward pass. A longer single row is a batch.
        done: called after each batch with the number of scored options.
    Raises:
        FairgateError: logits that are not finite, with the item's name; or too little memory for a
            single row.
    """
    batches = batches_of(encoded, model.packing, batch_tokens)
    sums = [[0.0] * len(e.requests) for e in encoded]
    for number, values, _ in likelihoods(model, batches, range(len(batches)), encoded):
        scatter(batches[number], values, sums)
        done(len(values))
    return sums


def batches_of(encoded: Sequence[Encoded], packing: Packing, batch_tokens: int) -> list[Batch]:
    """Rows in batches of one kind and about one length, the largest first.

    They depend on the arguments alone, so that a resumed run finds the same batches.
    """
    rows = rows_of(encoded, packing)
    # Rows without branches need no mask, and attention is faster without one: no mixed batches.
    rows.sort(key=lambda row: (row.regime, row.branches, -len(row.tokens), row.tokens))
    batches: list[Batch] = []
    width = 0
    for row in rows:
        alike = batches and (row.regime, row.branches) == (batches[-1][0].regime, batches[-1][0].branches)
        fits = alike and (len(batches[-1]) + 1) * width <= batch_tokens
        # Rows that would be padded by a quarter only join a batch that is still small.
        if fits and (4 * len(row.tokens) >= 3 * width or 8 * len(batches[-1]) * width < batch_tokens):
            batches[-1].append(row)
        else:
            batches.append([row])
            width = len(row.tokens)
    return batches


def scatter(batch: Batch, values: Sequence[float], sums: list[list[float]]) -> None:
    """Put the values of a batch into their places, sums[item][option]."""
    targets = (target for row in batch for target in row.targets)
    for target, value in zip(targets, values, strict=True):
        sums[target.item][target.option] = value


def likelihoods(
    model: Model, batches: Sequence[Batch], numbers: Iterable[int], encoded: Sequence[Encoded], pieces: int = 1
) -> Iterator[tuple[int, list[float], int]]:
    """Score the batches of these numbers.

    If memory runs out, this batch and all later ones run in twice as many pieces.

    Yields:
        number of the batch, the value of every target of its rows in order, number of pieces.
    """
    waiting: deque[tuple[int, list[_Launched], int]] = deque()

    def read() -> tuple[int, list[float], int]:
        number, launched, pieces = waiting.popleft()
        values = [value for part in launched for value in part.read()]
        _require_finite(batches[number], values, encoded)
        return number, values, pieces

    for number in numbers:
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
                        where=f"item {encoded[batch[0].targets[0].item].item.id!r}",
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
    targets = (target for row in batch for target in row.targets)
    for target, value in zip(targets, values, strict=True):
        if not math.isfinite(value):
            raise FairgateError(
                f"the log-likelihood of option {target.option} is {value}",
                where=f"item {encoded[target.item].item.id!r}",
                remedy="the weights or the dtype overflow: evaluate in float32, and look at the quantization record",
            )


@dataclass(frozen=True)
class _Launched:
    """Log-probabilities on their way to the host.

    logprobs: [t] float32, of every scored token.
    arrived: passes when they are on the host. None means they are there.
    owners: [t], the target that each belongs to.
    targets: number of targets.
    """

    logprobs: Tensor
    arrived: torch.cuda.Event | None
    owners: Ints
    targets: int

    def read(self) -> list[float]:
        """The sum of every target, float64."""
        if self.arrived:
            self.arrived.synchronize()
        return np.bincount(self.owners, self.logprobs.double().numpy(), self.targets).tolist()


@torch.inference_mode()
def _launch(model: Model, rows: Sequence[Row]) -> _Launched:
    """Put one forward pass on the device's queue."""
    branches = rows[0].branches
    # In every layer, attention on a GPU copies a mask whose rows are not a multiple of 16 long.
    width = _rounded(len(rows[0].tokens), 16 if branches and model.device.type == "cuda" else 1)
    names = ("tokens", "positions", "bounds") if branches else ("tokens",)
    grid = np.empty((len(names), len(rows), width), dtype=np.int64)
    for layer, name in zip(grid, names, strict=True):
        for line, row in zip(layer, rows, strict=True):
            line[: len(row.tokens)] = getattr(row, name)
            # A pad attends to itself; softmax over nothing would be NaN.
            line[len(row.tokens) :] = width if name == "bounds" else 0
    # A target is one option of one item; it owns the places whose next token is scored.
    # grid    [layers, rows, width]  tokens, and in rows with branches their positions and bounds
    # flat    [t]  place in the flattened batch of every scored token
    # tokens  [t]  the token after it, or GREEDY
    # owners  [t]  the target it belongs to
    # places  [u]  distinct places, u <= t: options may share one, and it needs one row of logits
    # index   [t]  flat = places[index]
    # order   [t]  sorts by place, so that the rows of logits are used one after another
    targets = [(b * width, target) for b, row in enumerate(rows) for target in row.targets]
    flat = np.array([start + place for start, target in targets for place in target.places])
    tokens = np.array([token for _, target in targets for token in target.tokens])
    owners = np.repeat(np.arange(len(targets)), [len(target.places) for _, target in targets])
    places, index = np.unique(flat, return_inverse=True)
    order = np.argsort(index, kind="stable")
    parts = [grid.ravel(), places, index[order], tokens[order]]
    grid_there, places_there, index_there, tokens_there = _upload(np.concatenate(parts), model.device).split([len(p) for p in parts])
    hidden = model.hidden(*grid_there.view(grid.shape)).flatten(0, 1)[places_there]
    logprobs = _logprobs(model, hidden, index[order], index_there, tokens_there, greedy=bool((tokens == GREEDY).any()))
    if model.device.type != "cuda":
        return _Launched(logprobs, None, owners[order], len(targets))
    on_host = torch.empty(logprobs.shape, dtype=logprobs.dtype, pin_memory=True).copy_(logprobs, non_blocking=True)
    return _Launched(on_host, torch.cuda.current_stream(model.device).record_event(), owners[order], len(targets))


def _logprobs(model: Model, hidden: Tensor, host_index: Ints, index: Tensor, tokens: Tensor, *, greedy: bool) -> Tensor:
    """Log-probability [t] float32 of each token.

    Args:
        hidden: [u, width] states of the distinct places.
        host_index: [t], the same as `index`, on the host.
        index: [t] ascending, the state that each token follows.
        tokens: [t]
        greedy: whether some tokens are GREEDY.
    """
    vocabulary = model.network.get_output_embeddings().weight.shape[0]
    size = _LOGIT_ROWS if model.device.type == "cpu" else max(_LOGIT_ROWS, _LOGIT_BYTES // (12 * vocabulary))
    starts = range(0, len(hidden) + size, size)
    parts = []
    for (start, stop), (low, high) in zip(pairwise(starts), pairwise(np.searchsorted(host_index, starts)), strict=True):
        logits = model.logits(hidden[start:stop]).float()
        row, token = index[low:high] - start, tokens[low:high]
        reached = logits[row, token.clamp(min=0)]
        if greedy:
            reached = reached.where(token != GREEDY, logits.amax(1)[row])
        parts.append(reached - logits.logsumexp(1)[row])
    return torch.cat(parts)


def _upload(values: Ints, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _rounded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
