"""The integer grid of a group of weights: w ~ scale * (code - zero), codes 0 .. 2^bits - 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 2.0**-24  # the smallest float16; a scale below it would be stored as zero


@dataclass(frozen=True)
class Grid:
    """Kind of grid: bits, weights that share a scale (`group_size`, -1: a whole row), symmetric or not."""

    bits: int
    group_size: int
    symmetric: bool

    @property
    def top(self) -> int:
        """The largest code."""
        return 2**self.bits - 1

    def width(self, d: int) -> int:
        """Columns per group in a matrix of d columns."""
        return d if self.group_size == -1 else self.group_size

    def fit(self, W: Tensor) -> tuple[Tensor, Tensor]:
        """Min-max scale and zero of each row of W.

        Args:
            W: [r, g] float32, the weights of one group a row.
        Returns:
            scale [r] float32, exactly representable in float16; zero [r] float32, an integer in 1 .. top
            (the GPTQ v1 layout stores zero - 1, so 0 cannot be expressed).
        """
        low, high = W.amin(1).clamp(max=0), W.amax(1).clamp(min=0)
        if self.symmetric:
            scale = 2 * torch.maximum(-low, high) / self.top
            zero = torch.full_like(scale, 2.0 ** (self.bits - 1))
        else:
            scale = (high - low) / self.top
            zero = torch.round(-low / scale.clamp(min=TINY)).clamp(1, self.top)
            # A group without negative weights got zero = 1 above and has one step less to reach its maximum.
            scale = torch.maximum(scale, torch.where(zero <= 1, high / (self.top - 1), scale))
        scale = torch.where(scale > 0, scale.clamp(min=TINY), torch.ones_like(scale))
        return scale.half().float(), zero

    def codes(self, W: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """Nearest codes of W (float32, same shape); scale and zero broadcast."""
        return torch.round(W / scale + zero).clamp_(0, self.top)


def values(codes: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Weights of codes [r, d] under scale, zero [r, groups]: Q [r, d] float32."""
    r, d = codes.shape
    split = codes.float().view(r, scale.shape[1], -1)
    return (scale.unsqueeze(-1) * (split - zero.unsqueeze(-1))).reshape(r, d)
