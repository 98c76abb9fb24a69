"""Learned rounding: offsets and clips of a model's grid, found by gradient steps on what the model
says (docs/methods.md).

    W     [r, d]       the weights to round: the model's, or points with the closed form's codes
    V     [r, d]       offset of each weight, -0.5 .. 0.5 codes
    clip  [r, groups]  factor of each group's scale, 0.5 .. 1
    Q     [r, d]       s (clamp(round(W / s + V) + zero) - zero) with s = clip scale, in float16

Layout: offsets (W, V, clip -> Q) -> losses (logits -> loss) -> data (what a step sees) -> training
(steps) -> learning (from a model on disk to modules on their grids) -> method (needs, run).
"""

from stages.quantize.methods.learned.method import FairRoundMethod, LearnedMethod
from stages.quantize.methods.learned.settings import FairRound, Learned

__all__ = ["FairRound", "FairRoundMethod", "Learned", "LearnedMethod"]
