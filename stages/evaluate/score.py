"""Log-likelihoods of options: shared beginnings are read once, and the vocabulary is reached only at the scored positions.

The options of an item begin alike (a question, the words before the one that differs). An item becomes one row

    tokens     prefix | rest of option 0 | rest of option 1 | ...
    positions  0 .. p | p ..             | p ..             |
    segment    0      | 1                | 2                |

in which a token sees earlier tokens of the prefix and of its own segment, so every option is read as if it stood alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from stages.common.errors import FairgateError
from stages.evaluate.model import Model
from stages.evaluate.tokens import Encoded, Request

_LOGIT_ROWS = 512  # rows of logits held at once: 100 MB at a vocabulary of 49,152 in float32
BEST = -1
Path = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One row of a forward pass; `reads`: for each option (item, option) the (place in the row, target token) pairs that it sums.

    A target of BEST is the likeliest token there.
    """

    tokens: list[int]
    positions: list[int]
    segments: list[int]
    reads: list[tuple[int, int, list[tuple[int, int]]]]

    @property
    def branches(self) -> bool:
        return max(self.segments) > 1


def score(
    model: Model, encoded: Sequence[Encoded], *, batch_tokens: int, done: Callable[[int], None] = lambda n: None
) -> list[list[float]]:
    """Summed log-likelihood (nats) of every option of every item.

    Rows are sorted by length and padded on the right, where a causal model cannot see; results do not depend on the batch.

    Args:
        batch_tokens: rows x longest row of one forward pass; a longer single row is a batch of its own.
        done: told after each batch how many options were scored.
    Raises:
        FairgateError: logits that are not finite; the message names the item.
    """
    sums = [[0.0] * len(e.requests) for e in encoded]
    rows = [row for i, e in enumerate(encoded) for row in _rows(i, e.requests, model.masked)]
    # Rows without branches need no mask, which is the faster attention: they do not share a batch with the others.
    rows.sort(key=lambda row: (row.branches, -len(row.tokens), row.tokens))
    for batch in _batches(rows, batch_tokens):
        width = len(batch[0].tokens)
        pairs: dict[tuple[int, int], int] = {}
        owners: list[tuple[int, int, list[int]]] = []
        for number, row in enumerate(batch):
            for i, k, reads in row.reads:
                owners.append((i, k, [pairs.setdefault((number * width + place, target), len(pairs)) for place, target in reads]))
        logprobs = _logprobs(model, batch, list(pairs))
        for i, k, index in owners:
            total = float(logprobs[index].sum())
            if total != total or total in (float("inf"), float("-inf")):
                raise FairgateError(
                    f"the log-likelihood of option {k} is {total}",
                    where=f"item {encoded[i].item.id!r}",
                    remedy="the weights or the dtype overflow: evaluate in float32, and look at the quantization record",
                )
            sums[i][k] = total
        done(len(owners))
    return sums


def _rows(i: int, requests: Sequence[Request], masked: int | None = None) -> list[Row]:
    """One row for the options of item `i`, or one for each if they have no first token in common or exceed `Model.masked`."""
    paths = list(dict.fromkeys(_path(request) for request in requests))
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False)))
    alone = masked is not None and len(paths) > 1 and max(map(len, paths)) > masked
    if not shared or alone:
        return [_row(i, {k: request}, [_path(request)], len(_path(request))) for k, request in enumerate(requests)]
    return [_row(i, dict(enumerate(requests)), paths, shared)]


def _row(i: int, requests: dict[int, Request], paths: list[Path], shared: int) -> Row:
    row = Row(list(paths[0][:shared]), list(range(shared)), [0] * shared, [])
    starts: dict[Path, int] = {}
    for segment, path in enumerate(paths, 1):
        starts[path] = len(row.tokens)
        row.tokens.extend(path[shared:])
        row.positions.extend(range(shared, len(path)))
        row.segments.extend([segment] * (len(path) - shared))
    for k, request in requests.items():
        start = starts[_path(request)]
        first = len(request.context) - 1
        places = (p if p < shared else start + p - shared for p in range(first, first + len(request.option)))
        targets = [BEST] * len(request.option) if request.best else request.option
        row.reads.append((i, k, list(zip(places, targets, strict=True))))
    return row


def _path(request: Request) -> Path:
    """What is read: all but the last token, which is only predicted."""
    return (request.context + request.option)[:-1]


def _batches(rows: list[Row], batch_tokens: int) -> Iterator[list[Row]]:
    """Consecutive rows of one kind (longest first) whose padded size fits."""
    start = 0
    while start < len(rows):
        size = max(1, batch_tokens // len(rows[start].tokens))
        batch = [row for row in rows[start : start + size] if row.branches == rows[start].branches]
        yield batch
        start += len(batch)


@torch.inference_mode()
def _logprobs(model: Model, batch: list[Row], pairs: list[tuple[int, int]]) -> Tensor:
    """Log-probability [n] float64 of each (flat place in the batch, target token)."""
    width = len(batch[0].tokens)
    ids, positions, segments = (_padded([getattr(row, name) for row in batch], width) for name in ("tokens", "positions", "segments"))
    mask = None
    if batch[0].branches:
        visible = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
        mask = (visible & torch.ones(width, width, dtype=torch.bool).tril())[:, None]
    where, targets = (torch.tensor(column, device=model.device) for column in zip(*pairs, strict=True))
    hidden = model.hidden(ids, positions, mask).flatten(0, 1)[where]
    parts = []
    for states, goal in zip(hidden.split(_LOGIT_ROWS), targets.split(_LOGIT_ROWS), strict=True):
        logits = model.logits(states).float()
        reached = logits.gather(1, goal.clamp(min=0)[:, None])[:, 0]
        if (goal == BEST).any():
            reached = reached.where(goal != BEST, logits.amax(1))
        parts.append(reached - logits.logsumexp(1))
    return torch.cat(parts).double().cpu()


def _padded(rows: list[list[int]], width: int) -> Tensor:
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])
