"""Log-likelihoods of options: length-sorted, right-padded batches; the vocabulary is reached only at the scored positions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from stages.common.errors import FairgateError
from stages.evaluate.model import Model
from stages.evaluate.tokens import Encoded

_LOGIT_ROWS = 512  # rows of logits held at once: 100 MB at a vocabulary of 49,152 in float32


def score(
    model: Model, encoded: Sequence[Encoded], *, batch_tokens: int, done: Callable[[int], None] = lambda n: None
) -> list[list[float]]:
    """Summed log-likelihood (nats) of every option of every item.

    Requests that read the same tokens share one row (both answers of a yes/no question). Padding lies on the right, where a causal
    model cannot see it, so no mask is needed and results do not depend on the batch.

    Args:
        batch_tokens: rows x longest row of one forward pass; a longer single row is a batch of its own.
        done: told after each batch how many requests were scored.
    Raises:
        FairgateError: logits that are not finite; the message names the item.
    """
    sums: list[list[float]] = [[0.0] * len(e.requests) for e in encoded]
    rows: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
    for i, e in enumerate(encoded):
        for k, request in enumerate(e.requests):
            rows[(request.context + request.option)[:-1]].append((i, k))
    for batch in _batches(sorted(rows, key=lambda ids: (-len(ids), ids)), batch_tokens):
        width = len(batch[0])
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        where: list[int] = []
        targets: list[int] = []
        owners: list[tuple[int, int, int]] = []
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            for i, k in rows[tokens]:
                request = encoded[i].requests[k]
                first = row * width + len(request.context) - 1
                where += range(first, first + len(request.option))
                targets += request.option
                owners.append((i, k, len(request.option)))
        logprobs = _logprobs(model, ids, where, targets)
        for (i, k, _), part in zip(owners, logprobs.split([count for *_, count in owners]), strict=True):
            total = float(part.sum())
            if not torch.isfinite(part).all():
                raise FairgateError(
                    f"the log-likelihood of option {k} is {total}",
                    where=f"item {encoded[i].item.id!r}",
                    remedy="the weights or the dtype overflow: evaluate in float32, and look at the quantization record",
                )
            sums[i][k] = total
        done(len(owners))
    return sums


@torch.inference_mode()
def _logprobs(model: Model, ids: Tensor, where: list[int], targets: list[int]) -> Tensor:
    """Log-probability [n] float64 of target t_j at flat position where_j of ids [B, L]."""
    hidden = model.hidden(ids.to(model.device)).flatten(0, 1)[torch.tensor(where, device=model.device)]
    goal = torch.tensor(targets, device=model.device)
    parts = []
    for states, tokens in zip(hidden.split(_LOGIT_ROWS), goal.split(_LOGIT_ROWS), strict=True):
        logits = model.logits(states).float()
        parts.append(logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1))
    return torch.cat(parts).double().cpu()


def _batches(rows: list[tuple[int, ...]], batch_tokens: int) -> Iterator[list[tuple[int, ...]]]:
    """Consecutive rows (longest first) whose padded size fits."""
    start = 0
    while start < len(rows):
        size = max(1, batch_tokens // len(rows[start]))
        yield rows[start : start + size]
        start += size
