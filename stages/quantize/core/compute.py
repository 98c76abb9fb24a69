"""Where and how the blocks of a model run."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Compute:
    """Devices, types and memory of one run. Accumulators, factors and rounding are float32.

    Args:
        device: the first device; it factorizes and rounds.
        dtype: of the blocks' forward passes.
        low_memory: hidden states stay on the CPU, and no batch waits inside a block.
        waiting: how many batches, from the first, wait inside a block; the others run the block
            again for every group. None means all of them wait.
        others: further GPUs, which run their share of the batches.
        diagnostics: measure where in the weights the penalty sits and how strong it is against H
            (`contributions.csv`, `top_eigenvalue`).
        alpha_zero: with diagnostics, round every debiased module without the fairness term too, to
            tell how much of the penalty plain GPTQ leaves.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    low_memory: bool = False
    waiting: int | None = None
    others: tuple[torch.device, ...] = ()
    diagnostics: bool = True
    alpha_zero: bool = False
