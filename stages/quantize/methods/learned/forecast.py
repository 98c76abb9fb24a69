"""What learned rounding will need of disk and memory, from shapes and token counts alone."""

from __future__ import annotations

import torch

from stages.quantize.core.compute import Compute
from stages.quantize.methods.base import Forecast
from stages.quantize.methods.learned.data import Slots
from stages.quantize.methods.learned.learning import BLOCK_TEXTS
from stages.quantize.methods.learned.settings import Learned
from stages.quantize.methods.shared.modules import grid_of
from stages.quantize.methods.shared.sizes import FLOAT, group_shapes, linear_shapes, packed_bytes, parameters
from stages.quantize.model.streamed import Streamed

# Copies of a batch's logits in float32 at once, as measured: of passages teacher, student, both
# logarithms and three products of those.
_LOGITS = {"texts": 7, "triples": 3}
_ROUNDING = 5  # one block in float32 while a step is taken: codes, G, W, W / s, and the gradient of V


def forecast(source: Streamed, recipe: Learned, compute: Compute, start: Forecast, step: Slots) -> Forecast:
    """The needs of the steps, where they exceed those of the closed form that they start from."""
    blocks, item, on_gpu, total = len(source.blocks), compute.dtype.itemsize, compute.device.type == "cuda", parameters(source)
    shapes = linear_shapes(source)
    weights = sum(r * d for _, r, d in shapes)
    groups = sum(r * (d // grid_of(recipe, name).width(d)) for name, r, d in shapes)
    offsets = weights * (FLOAT if compute.dtype == torch.float32 else 2)
    state = offsets + groups * FLOAT
    # Beside the model Q, its gradient and V; three numbers a group; of a closed form its codes and
    # the points that round to them.
    begun = 0 if recipe.starts_from_nearest else weights * (1 + FLOAT)
    standing = total * item + 2 * weights * item + offsets + 3 * groups * FLOAT + begun
    # For the gradient every linear module's input and output are kept, and two norms' inputs in
    # float32.
    r_d = group_shapes(source)
    hidden = r_d[0][0][1]
    token = item * sum(group[0][1] + sum(r for r, _ in group) for group in r_d) + 2 * FLOAT * hidden
    token = token + blocks * hidden * item if recipe.recompute else blocks * token
    logits = source.model.config.vocab_size * FLOAT
    # The teacher's hidden states, and in float32 how far the student's are from them.
    features = {"texts": blocks * hidden * (item + FLOAT) if recipe.features else 0}
    both = [count * (token + logits * _LOGITS[kind] + features.get(kind, 0)) for kind, count in vars(step).items()]
    # What the blocks are distilled on: the first one's input and every output, twice while they are
    # joined.
    passages = BLOCK_TEXTS * recipe.texts * recipe.text_tokens if recipe.block_steps else 0
    distilling = passages * hidden * item * 2 * (blocks + 1)
    # A state is copied before it is written.
    learning = standing + max(*both, distilling, _ROUNDING * FLOAT * weights // blocks, 0 if on_gpu else state)
    cpu = max(start.cpu, total * item, state) if on_gpu else max(start.cpu, learning)
    packed = sum(packed_bytes(name, r, d, recipe) for name, r, d in shapes)
    return Forecast(
        cpu=cpu,
        gpu=max(start.gpu, learning) if on_gpu else 0,
        out=start.out,
        work=max(2 * state, state + packed),  # while the state is replaced there are two
        leaner="`recompute: true` in the recipe",
        fewer="fewer `texts` or `pairs` a step need less",
    )
