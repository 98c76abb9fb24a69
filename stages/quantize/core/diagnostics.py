"""Where in a weight matrix the pair penalty F(Q) = tr (Q C Q^T) sits. C holds no alpha, so values of different runs compare.

    F = sum over inputs j of f_j = sum over outputs i of g_i = sum over weights

Single f_j may be negative (cancellation between channels); they are signed on purpose, and only then do they add up.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fairgate.contracts.contributions import Contribution
from stages.quantize.core.products import coarse_matmul

TOP = 8  # channels of a module that are listed


def by_channel(Q: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Contributions of the inputs and of the outputs: Q [.., r, d], C [d, d] -> f [.., d], g [.., r] in float64.

    f_j = q_j . (Q C)_j is signed, g_i = Q_i C Q_i^T is not negative; both sum to tr (Q C Q^T).
    """
    weights = Q * coarse_matmul(Q.reshape(-1, Q.shape[-1]), C).view_as(Q)
    return weights.sum(-2, dtype=torch.float64), weights.sum(-1, dtype=torch.float64)


def of_module(name: str, block: int, kind: str, states: Mapping[str, Tensor], C: Tensor, pairs: int) -> list[Contribution]:
    """Rows of one module: itself, and for its inputs and its outputs the largest channels and one row for all others.

    Args:
        states: the weight [r, d] in each state of the table. C: [d, d]. pairs: P, by which all values are divided.
    """
    names = {"block": block, "kind": kind, "module": name}
    parts = zip(("input", "output"), by_channel(torch.stack(list(states.values())), C), strict=True)
    levels = {level: [part.cpu() for part in _largest(values / pairs)] for level, values in parts}
    rows = [_row("module", names, None, states, levels["output"][0].sum(1))]
    for level, (values, channels) in levels.items():
        rows += [_row(level, names, channel, states, values[:, at]) for at, channel in enumerate(channels.tolist())]
        rows.append(_row(level, names, None, states, values[:, -1]))
    return rows


def _largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Of values [states, channels]: [states, TOP + 1], the largest channels' and the sum of all others; [TOP], the channels.

    Largest in any state: a channel that rounding made large belongs here as much as one that was large before.
    """
    order = values.abs().amax(0).argsort(descending=True, stable=True)
    return torch.cat((values[:, order[:TOP]], values[:, order[TOP:]].sum(1, keepdim=True)), 1), order[:TOP]


def _row(level: str, names: Mapping[str, object], channel: int | None, states: Mapping[str, Tensor], values: Tensor) -> Contribution:
    found = dict(zip(states, values.tolist(), strict=True))
    return Contribution.model_validate({"level": level, **names, "channel": channel, **found})
