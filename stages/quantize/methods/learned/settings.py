"""The settings of learned rounding and of fair rounding."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.quantize.methods.base import METHODS, GridRecipe


class Learned(GridRecipe):
    """Rounding learned from the unquantized model's predictions on text (docs/methods.md)."""

    method: Literal["learned"] = Field(description="rounding learned by gradient steps")
    start: Literal["rtn", "gptq", "fair_gptq"] = Field("rtn", description="the closed form whose codes it starts from")
    alpha: float | None = Field(None, ge=0, description="of a `fair_gptq` start, which needs it")
    steps: int = Field(200, gt=0, description="sign-gradient steps over the whole model")
    block_steps: int = Field(0, ge=0, description="before them, steps for each block towards the unquantized block's output")
    rate: float = Field(0.005, gt=0, lt=1, description="first step of the offsets, in codes; falls linearly to 0")
    clip_rate: float = Field(0.001, ge=0, lt=1, description="first step of the clips, as a share of the scale; falls linearly to 0")
    features: float = Field(
        0.0, ge=0, description="weight of the hidden states' distance from the unquantized model's, beside the divergence"
    )
    texts: int = Field(16, gt=0, description="rows of text a step")
    text_tokens: int = Field(256, gt=1, description="tokens of a row")
    keep: int = Field(50, gt=0, description="steps between two states that a killed run goes on from")
    recompute: bool = Field(
        False, description="compute a block's activations again for the gradient instead of keeping them; needed from about 1B weights on"
    )

    @model_validator(mode="after")
    def _alpha_of_a_fair_start(self) -> Learned:
        if (self.alpha is None) == (self.start == "fair_gptq"):
            raise ValueError("alpha belongs to start: fair_gptq, which needs it")
        return self

    @property
    def reach(self) -> float:
        """How far the steps can move an offset, in codes: two series that fall linearly to zero."""
        steps = self.steps + 1 + (self.block_steps + 1 if self.block_steps else 0)
        return self.rate * steps / 2

    @property
    def starts_from_nearest(self) -> bool:
        """Whether it starts from the nearest codes, which need no pass through the model."""
        return self.start == "rtn"

    def closed_form(self) -> GridRecipe:
        """The recipe of the start."""
        grid = {name: getattr(self, name) for name in GridRecipe.model_fields if name != "method"}
        weight = {} if self.alpha is None else {"alpha": self.alpha}
        recipe: GridRecipe = METHODS[self.start].settings(method=self.start, **grid, **weight)
        return recipe


class FairRound(Learned):
    """Learned rounding whose loss also holds the log-likelihoods of the pairs to parity."""

    method: Literal["fair_round"] = Field(description="learned rounding with parity on the pairs")  # type: ignore[assignment]
    pairs: int = Field(64, gt=0, description="triples a step, in equal parts of every group")
    context: bool = Field(False, description="draw from context_pairs.jsonl too")
    pair_tokens: int = Field(
        32, gt=1, description="a triple with a longer sentence is left out: all sentences of a step are as wide as the widest of all"
    )
    parity: float = Field(2.0, ge=0, description="weight lambda of the distance from parity")
    anchor: float = Field(5.0, ge=0, description="weight kappa of the change of the sentences' likelihoods")
    spread: float = Field(0.0, ge=0, description="weight beta of the squared preferences")
    tau: float = Field(0.1, gt=0, description="nats a token beyond which a preference counts in full")
    worst: float = Field(4.0, ge=0, description="how much more the groups farthest from parity weigh; 0: all alike")
