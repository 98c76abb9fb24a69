"""The integer grid of a group of weights: w ~ scale * (code - zero), codes 0 .. 2^bits - 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 2.0**-24  # the smallest float16; a scale below it would be stored as zero
# Shares of the range that `clip` tries, down to 0.3: 2-bit grids of long-tailed weights end there.
SHRINK = [1 - step / 40 for step in range(1, 29)]


@dataclass(frozen=True)
class Grid:
    """The kind of grid that weights are rounded to.

    bits: of a code.
    group_size: number of weights in a row that share a scale; -1 means the whole row.
    symmetric: whether zero lies in the middle of the grid.
    clip: shrink a group's range to where its squared rounding error is least. Otherwise the grid
        covers the extremes of the group.
    static: fit all scales before the column loop. Otherwise a scale is fitted when the loop
        reaches its group, to the weights as moved by then.
    lowest_zero: the smallest zero point that the checkpoint's format can express.
    """

    bits: int
    group_size: int
    symmetric: bool
    clip: bool = False
    static: bool = False
    lowest_zero: int = 1

    @property
    def top(self) -> int:
        """The largest code."""
        return 2**self.bits - 1

    def width(self, d: int) -> int:
        """Columns per group in a matrix of d columns."""
        return d if self.group_size == -1 else self.group_size

    def fit(self, W: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero of each row of W: min-max, or clipped.

        Args:
            W: [r, g] float32, one group of weights per row.
        Returns:
            scale: [r] float32, exactly representable in float16.
            zero: [r] float32, an integer in lowest_zero .. top.
        """
        low, high = W.amin(1).clamp(max=0), W.amax(1).clamp(min=0)
        scale, zero = self._cover(low, high)
        if self.clip:
            least = self._error(W, scale, zero)
            for shrink in SHRINK:
                s, z = self._cover(shrink * low, shrink * high)
                error = self._error(W, s, z)
                better = error < least
                scale, zero = torch.where(better, s, scale), torch.where(better, z, zero)
                least = torch.where(better, error, least)
        return scale, zero

    def fit_groups(self, W: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero of every group of W [r, d]: each [r, groups]."""
        r, d = W.shape
        scale, zero = self.fit(W.reshape(-1, self.width(d)))
        return scale.view(r, -1), zero.view(r, -1)

    def codes(self, W: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """Nearest codes of W (float32, same shape); scale and zero broadcast."""
        return torch.round(W / scale + zero).clamp_(0, self.top)

    def _cover(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero whose grid reaches from low [r] <= 0 to high [r] >= 0."""
        if self.symmetric:
            scale = 2 * torch.maximum(-low, high) / self.top
            zero = torch.full_like(scale, 2.0 ** (self.bits - 1))
        else:
            scale = (high - low) / self.top
            zero = torch.round(-low / scale.clamp(min=TINY)).clamp(self.lowest_zero, self.top)
            # A group without negative weights has the lowest zero. If that is 1, one step less is
            # left to reach its maximum.
            lowest = self.lowest_zero
            scale = torch.maximum(scale, torch.where(zero <= lowest, high / (self.top - lowest), scale))
        scale = torch.where(scale > 0, scale.clamp(min=TINY), torch.ones_like(scale))
        return scale.half().float(), zero

    def _error(self, W: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """Squared rounding error of each row of W [r, g]: [r]."""
        s, z = scale[:, None], zero[:, None]
        return (s * (self.codes(W, s, z) - z) - W).square().sum(1)


def values(codes: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Weights of codes [r, d] under scale, zero [r, groups]: Q [r, d] float32."""
    r, d = codes.shape
    split = codes.float().view(r, scale.shape[1], -1)
    return (scale.unsqueeze(-1) * (split - zero.unsqueeze(-1))).reshape(r, d)
