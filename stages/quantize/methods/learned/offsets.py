"""The rounding that is learned: an offset for every weight and a clip for every group, straight
through the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from stages.quantize.core.columns import Rounded, round_nearest
from stages.quantize.core.fair import FETCH_AGAIN, require_finite
from stages.quantize.core.grid import TINY, Grid
from stages.quantize.methods.learned.settings import Learned
from stages.quantize.methods.shared.modules import located, require_scales
from stages.quantize.model.calibration_pass import Linear, weight_of

LEAST_CLIP = 0.5


def on_grid(W: Tensor, V: Tensor, clip: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
    """Q [n, g] float32 of the groups W, V [n, g] under clip, scale, zero [n, 1]: s (clamp(round(W /
    s + V) + zero) - zero).
    """
    s = stored_scale(clip, scale)
    return _codes(W, V, s, zero).clamp_(0, top).sub_(zero).mul_(s)


def straight_through(G: Tensor, W: Tensor, V: Tensor, clip: Tensor, scale: Tensor, zero: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Gradients with respect to V [n, g] and clip [n, 1], from that with respect to Q, G [n, g].

    They pass the rounding as if it were none (arXiv 1308.3432), and stop where a code is clamped.
    """
    s = stored_scale(clip, scale)
    codes = _codes(W, V, s, zero)
    inside = (codes >= 0) & (codes <= top)
    G = G.float()
    # Inside, Q = s round(W / s + V) has dQ/ds = (code - zero) - W / s; where it is clamped, code -
    # zero.
    ds = codes.clamp_(0, top).sub_(zero).sub_((W.float() / s).mul_(inside)).mul_(G).sum(1, keepdim=True)
    return (G * s).mul_(inside), ds.mul_(scale)


def stored_scale(clip: Tensor, scale: Tensor) -> Tensor:
    """The clipped scale as the checkpoint holds it: in float16."""
    return (clip * scale).half().float().clamp_(min=TINY)


def _codes(W: Tensor, V: Tensor, s: Tensor, zero: Tensor) -> Tensor:
    """Codes before they are clamped, float32."""
    return (W.float() / s).add_(V).round_().add_(zero)


class Offsets:
    """Linear modules of one block on the same kind of grid, as one matrix with a group a row.

    own: [n, g] the modules' weights, in their type.
    W: [n, g] what is rounded. None means `own`.
    V: [n, g] the offsets.
    clip: [n, 1] the learned factor of the scale.
    scale: [n, 1] of the codes that the modules start from.
    zero: [n, 1] of these codes.
    Q: [n, g] the rounded weights, in the weights' type.
    G: [n, g] the gradient with respect to Q, in the weights' type.

    Args:
        modules: by full name; from now on their weights are views of Q or of `own`.
        start: the codes that they start from. A module that is not in it starts from the nearest
            codes. The codes are met exactly: W is the point nearest to the weight that rounds to
            them, and V is zero.
        dtype: of V.
    Raises:
        NotFinite: a weight is not finite, or too large for a scale in float16.
    """

    def __init__(self, modules: Mapping[str, Linear], start: Mapping[str, Rounded], grid: Grid, dtype: torch.dtype) -> None:
        weights = {name: weight_of(module).detach() for name, module in modules.items()}
        device, self.top = next(iter(weights.values())).device, grid.top
        width = grid.width(next(iter(weights.values())).shape[1])
        self.own = torch.cat([W.reshape(-1, width) for W in weights.values()])
        for name, W in weights.items():
            with located(name):
                require_finite(W, "the weight", FETCH_AGAIN)
        begun = [start[name] if name in start else round_nearest(W.float(), grid) for name, W in weights.items()]
        for (name, W), rounded in zip(weights.items(), begun, strict=True):
            with located(name):
                require_scales(rounded, W)
        self.scale, self.zero = (
            torch.cat([getattr(rounded, part).reshape(-1, 1) for rounded in begun]).to(device) for part in ("scale", "zero")
        )
        codes = torch.cat([rounded.codes.reshape(-1, width) for rounded in begun]).to(device)
        self.V = torch.zeros_like(self.own, dtype=dtype)
        self.clip = torch.ones_like(self.scale)
        self.W = _rounding_to(codes, self.own, self.scale, self.zero, self.top)
        self.Q, self.G = torch.empty_like(self.own), torch.zeros_like(self.own)
        self._modules, self._rows, first = modules, {}, 0
        for name, W in weights.items():
            last = first + W.numel() // width
            self._rows[name] = (slice(first, last), W.shape)
            first = last
        for name, module in modules.items():
            module.weight = nn.Parameter(self._view(self.Q, name))
            module.weight.grad = self._view(self.G, name)
        self.refresh()

    @property
    def names(self) -> list[str]:
        """Full names of the modules."""
        return list(self._modules)

    def least_move(self) -> float:
        """The smallest offset that changes a code, in codes; one half for weights on the grid."""
        W, *_ = self._grid()
        steps = W.float() / stored_scale(self.clip, self.scale)
        return 0.5 - float((steps - steps.round()).abs().max())

    def reset(self) -> None:
        """Back to the start."""
        self.V.zero_()
        self.clip.fill_(1.0)

    def refresh(self) -> None:
        """Round anew, and forget the gradient."""
        self.Q.copy_(on_grid(*self._grid()))
        self.G.zero_()

    def use(self, weights: Tensor) -> None:
        """Make the modules compute with `own` or with Q."""
        for name, module in self._modules.items():
            module.weight.data = self._view(weights, name)

    def step(self, rate: float, clip_rate: float) -> None:
        """One step against the signs of the gradient, V and clip kept inside their bounds."""
        dV, dclip = straight_through(self.G, *self._grid())
        self.V.sub_(dV.sign_().mul_(rate)).clamp_(-0.5, 0.5)
        self.clip.sub_(dclip.sign_().mul_(clip_rate)).clamp_(LEAST_CLIP, 1.0)

    def weight(self, name: str) -> Tensor:
        """A module's own weight, [r, d]."""
        rows, shape = self._rows[name]
        return self.own[rows].view(shape)

    def rounded(self, name: str) -> Rounded:
        """A module on its grid."""
        rows, (r, d) = self._rows[name]
        W, V, clip, scale, zero, top = self._grid()
        s = stored_scale(clip[rows], scale[rows])
        codes = _codes(W[rows], V[rows], s, zero[rows]).clamp_(0, top).to(torch.uint8)
        return Rounded(codes.view(r, d), s.view(r, -1), zero[rows].view(r, -1), s.new_zeros(r))

    def _grid(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int]:
        return self.own if self.W is None else self.W, self.V, self.clip, self.scale, self.zero, self.top

    def _view(self, groups: Tensor, name: str) -> Tensor:
        rows, shape = self._rows[name]
        W = groups[rows].view(shape)
        return W.T if isinstance(self._modules[name], Conv1D) else W


def _rounding_to(codes: Tensor, own: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor | None:
    """The points nearest to `own` that round to the codes, [n, g] float32; None where all of `own`
    do.
    """
    same = _codes(own, torch.zeros_like(own, dtype=torch.float32), scale, zero).clamp_(0, top) == codes
    if same.all():
        return None
    Q, inside = scale * (codes - zero), 0.48 * scale
    return torch.where(same, own.float(), Q + (own.float() - Q).clamp(-inside, inside))


def attach(
    blocks: Sequence[Mapping[str, Linear]], start: Mapping[str, Rounded], grids: Mapping[str, Grid], dtype: torch.dtype
) -> list[Offsets]:
    """Offsets for the modules of every block, by full name; from then on they compute with Q."""
    offsets = []
    for modules in blocks:
        kinds: dict[tuple[Grid, int], dict[str, Linear]] = {}
        for name, module in modules.items():
            kinds.setdefault((grids[name], grids[name].width(weight_of(module).shape[1])), {})[name] = module
        offsets += [Offsets(alike, start, grid, dtype) for (grid, _), alike in kinds.items()]
    return offsets


@contextmanager
def unquantized(offsets: Sequence[Offsets]) -> Iterator[None]:
    """The full-precision model: the same one, with its own weights. Nothing that a gradient is
    still wanted of may be under way.
    """
    for part in offsets:
        part.use(part.own)
    try:
        with torch.no_grad():
            yield
    finally:
        for part in offsets:
            part.use(part.Q)


def descend(offsets: Sequence[Offsets], recipe: Learned, done: float) -> None:
    """One step of all offsets; its length falls linearly with the share of the steps that is
    `done`.
    """
    for part in offsets:
        part.step(recipe.rate * (1 - done), recipe.clip_rate * (1 - done))
