"""The rounding that is learned: an offset for every weight and a clip for every group, straight through the rounding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from stages.quantize.columns import Rounded
from stages.quantize.grid import TINY, Grid
from stages.quantize.walk import Linear, weight_of

LEAST_CLIP = 0.5


class _Straight(torch.autograd.Function):
    """Q of weights by group. The gradient passes the rounding as if it were none, and stops where a code is clamped."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, V: Tensor, clip: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
        ctx.save_for_backward(W, V, clip, scale, zero)
        ctx.top = top
        s = _scale(clip, scale)
        return s * (_raw_codes(W, V, s, zero).clamp_(0, top) - zero)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        W, V, clip, scale, zero = ctx.saved_tensors
        (G,) = gradients
        s = _scale(clip, scale)
        raw = _raw_codes(W, V, s, zero)
        inside = (raw >= 0) & (raw <= ctx.top)
        dV = (G * s).mul_(inside)
        # Q = s (round(W / s + V)) inside: dQ/ds = (code - zero) - W / s; clamped: code - zero.
        ds = raw.clamp_(0, ctx.top).sub_(zero).sub_((W.float() / s).mul_(inside)).mul_(G)
        return None, dV.to(V.dtype), (ds.sum(-1, keepdim=True) * scale).to(clip.dtype), None, None, None


def _scale(clip: Tensor, scale: Tensor) -> Tensor:
    """The scale as the checkpoint stores it: in float16."""
    return (clip.float() * scale).half().float().clamp_(min=TINY)


def _raw_codes(W: Tensor, V: Tensor, s: Tensor, zero: Tensor) -> Tensor:
    """Codes before they are clamped, float32."""
    return (W.float() / s).add_(V).round_().add_(zero)


class Offsets(nn.Module):
    """Parametrization of one linear module's weight: what the module computes with is Q while `active`, else the weight itself.

    Args:
        weight: [r, d], the model's. rounded: the start. dtype: of V.
    The start's codes are met exactly: W is the point nearest to `weight` among those that round to them, and V is zero.
    """

    def __init__(self, weight: Tensor, rounded: Rounded, grid: Grid, dtype: torch.dtype, transposed: bool) -> None:
        super().__init__()
        self.W: Tensor | None
        self.scale: Tensor
        self.zero: Tensor
        r, d = weight.shape
        self.width, self.top, self.transposed, self.active = grid.width(d), grid.top, transposed, True
        self.register_buffer("scale", rounded.scale.to(weight.device).unsqueeze(-1))  # [r, groups, 1]
        self.register_buffer("zero", rounded.zero.to(weight.device).unsqueeze(-1))
        self.V = nn.Parameter(torch.zeros(r, d // self.width, self.width, dtype=dtype, device=weight.device))
        self.clip = nn.Parameter(torch.ones_like(self.scale, dtype=torch.float32))
        own = self._groups(weight)
        Q = self._groups(rounded.Q.to(weight.device))
        same = _same(own, Q, self.scale, self.zero, self.top)
        self.register_buffer("W", None if same.all() else torch.where(same, own.float(), _nearest(own.float(), Q, self.scale)))

    def forward(self, weight: Tensor) -> Tensor:
        if not self.active:
            return weight
        plain = weight.T if self.transposed else weight
        W = self._groups(plain) if self.W is None else self.W
        Q = _Straight.apply(W, self.V, self.clip, self.scale, self.zero, self.top).view(plain.shape).to(weight.dtype)
        return Q.T if self.transposed else Q

    @torch.no_grad()
    def rounded(self, weight: Tensor) -> Rounded:
        """The matrix on its grid, as it stands; weight: the model's [r, d]."""
        W = self._groups(weight) if self.W is None else self.W
        s = _scale(self.clip, self.scale)
        codes = _raw_codes(W, self.V, s, self.zero).clamp_(0, self.top)
        return Rounded(
            codes.view(weight.shape).to(torch.uint8), s[..., 0], self.zero[..., 0], torch.zeros(len(weight), device=weight.device)
        )

    def _groups(self, W: Tensor) -> Tensor:
        return W.detach().reshape(len(W), -1, self.width)


def _same(W: Tensor, Q: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
    """Where W rounds to Q by itself."""
    codes = (W.float() / scale).round_().add_(zero).clamp_(0, top)
    return codes == (Q / scale + zero).round_()


def _nearest(W: Tensor, Q: Tensor, scale: Tensor) -> Tensor:
    """The point nearest to W that rounds to Q, a little inside."""
    half = 0.48 * scale
    return Q + (W - Q).clamp(-half, half)


def attach(
    linears: Mapping[str, Linear], start: Mapping[str, Rounded], grids: Mapping[str, Grid], dtype: torch.dtype
) -> dict[str, Offsets]:
    """Give every module its offsets; from then on it computes with Q. By full name."""
    found = {}
    for name, module in linears.items():
        offsets = Offsets(weight_of(module).detach(), start[name], grids[name], dtype, isinstance(module, Conv1D))
        parametrize.register_parametrization(module, "weight", offsets, unsafe=True)
        parametrizations: Any = module.parametrizations
        parametrizations.weight.original.requires_grad_(False)
        found[name] = offsets
    return found


@contextmanager
def unquantized(offsets: Mapping[str, Offsets]) -> Iterator[None]:
    """The full-precision model: the same one, with its own weights."""
    for each in offsets.values():
        each.active = False
    try:
        with torch.no_grad():
            yield
    finally:
        for each in offsets.values():
            each.active = True
