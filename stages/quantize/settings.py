"""Recipes and run settings: what a person writes in params.yaml, validated before any weight is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from fairgate.contracts.gptq_format import LOWEST_ZERO, bits_of
from fairgate.support.errors import FairgateError, UnknownName
from fairgate.support.params import Section, parse, pick, read_params
from stages.quantize.core.grid import Grid
from stages.quantize.core.names import Alignment, Mode

WIDTHS = (16, 32, 64, 128, 256)  # group sizes; -1 is a whole row


class Run(Section):
    """Section `quantize`: how to run, the same for every recipe.

    gpus: GPUs that share the batches. gpu_gib: memory of each that may be used; as many batches wait inside a block as fit. None: what
        is free.
    diagnostics: `contributions.csv` and the penalties and eigenvalues of `quantization.json`.
    alpha_zero: tell there what plain GPTQ would have left, at the price of a second rounding of each debiased module.
    """

    device: Literal["auto", "cpu", "cuda"]
    seed: int
    batch_tokens: int = Field(gt=0)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # bfloat16 on a GPU
    low_memory: bool = False
    gpus: int = Field(1, gt=0)
    gpu_gib: float | None = Field(None, gt=0)
    diagnostics: bool = True
    alpha_zero: bool = True


@dataclass(frozen=True)
class Compute:
    """Where and how the blocks run. dtype: of their forward passes; sums, factors and rounding are float32.

    others: further GPUs, which run their share of the batches.
    low_memory: hidden states stay on the CPU, and no batch waits inside a block.
    waiting: how many batches, from the first, wait inside a block; the others run it anew for every group. None: all.
    diagnostics: tell where in the weights the penalty sits, and how strong it is against H (`contributions.csv`, `top_eigenvalue`).
    alpha_zero: for that, every debiased module is rounded without the fairness term too, to tell how much of the penalty plain GPTQ leaves.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    low_memory: bool = False
    waiting: int | None = None
    others: tuple[torch.device, ...] = ()
    diagnostics: bool = True
    alpha_zero: bool = False


class Rtn(Section):
    """Round to nearest: no data.

    clip: `mse` shrinks each group's range to the least squared rounding error; bits_by_module: pattern -> bits, the first pattern that
    fits a module's full name or its last parts (`down_proj`, `layers.0.*`; `*` is any text); format: of the checkpoint, `gptq` is v1.
    """

    method: Literal["rtn"]
    bits: Literal[2, 3, 4, 8]
    group_size: int
    symmetric: bool
    clip: Literal["none", "mse"] = "none"
    bits_by_module: dict[str, Literal[2, 3, 4, 8]] = Field(default_factory=dict)
    format: Literal["gptq", "gptq_v2"] = "gptq"

    @model_validator(mode="after")
    def _known_width(self) -> Rtn:
        if self.group_size != -1 and self.group_size not in WIDTHS:
            raise ValueError(f"group_size must be -1 or one of {WIDTHS} (got {self.group_size})")
        return self

    @model_validator(mode="after")
    def _has_a_reader(self) -> Rtn:
        # transformers reads no bits by module, and gptqmodel no asymmetric v1 but its own.
        if self.bits_by_module and not self.symmetric and self.format == "gptq":
            raise ValueError("bits_by_module with symmetric: false needs format: gptq_v2, or no library loads the checkpoint")
        return self

    @property
    def dynamic(self) -> dict[str, dict[str, int]]:
        """`bits_by_module` as gptqmodel's checkpoints state it: regular expressions for the full name, matched from its start."""
        return {rf"+:(.*\.)?{'.*'.join(map(re.escape, name.split('*')))}$": {"bits": bits} for name, bits in self.bits_by_module.items()}

    def grid(self, module: str) -> Grid:
        """The grid of a module by its full name."""
        bits = bits_of(module, self.bits, self.dynamic)
        static = isinstance(self, Gptq) and self.static_groups
        return Grid(bits, self.group_size, self.symmetric, self.clip == "mse", static, LOWEST_ZERO[self.format])


class Gptq(Rtn):
    """GPTQ on the calibration data, without a fairness term.

    calibration: which data enter H; text_share: the weight w of general text (default: its share of the tokens);
    collection: `sequential` (inputs come from the blocks already quantized) or `parallel` (from the unquantized model);
    static_groups: all scales are fixed before the column loop; act_order: columns are rounded by descending diagonal of the Hessian.
    """

    method: Literal["gptq"]  # type: ignore[assignment]
    damping: float = Field(0.01, ge=0, lt=1)
    calibration: Literal["mixed", "pairs", "text"] = "mixed"
    text_share: float | None = Field(None, ge=0, le=1)
    collection: Literal["sequential", "parallel"] = "sequential"
    static_groups: bool = False
    act_order: bool = False

    @model_validator(mode="after")
    def _no_reordering_at_inference(self) -> Gptq:
        if self.act_order and not self.static_groups:
            raise ValueError("act_order needs static_groups: true, or a group's columns would lie scattered in the packed weight")
        return self


class FairGptq(Gptq):
    """GPTQ with the group-fairness term (docs/methods.md)."""

    method: Literal["fair_gptq"]  # type: ignore[assignment]
    mode: Mode = Field(Mode.exact, strict=False)
    alignment: Alignment = Field(Alignment.aligned, strict=False)
    group_by: Literal["bias_type", "target"] = "bias_type"
    alpha: float | None = Field(None, ge=0)
    rho: float | None = Field(None, ge=0)
    rho_scope: Literal["module", "global"] = "module"
    modules: str | list[str] = "all"
    blocks: str = "all"

    @model_validator(mode="after")
    def _one_strength(self) -> FairGptq:
        if (self.alpha is None) == (self.rho is None):
            raise ValueError("give either alpha or rho, not both and not neither")
        if self.calibration == "text":
            raise ValueError("fair_gptq needs pairs: calibration must be 'mixed' or 'pairs'")
        return self


class Learned(Rtn):
    """Rounding learned from the unquantized model's predictions on general text (docs/methods.md).

    start: the closed form whose codes it starts from; alpha: of a `fair_gptq` start.
    steps: end to end; block_steps: before them for each block, towards the unquantized block's output.
    rate, clip_rate: first step of the offsets (in codes) and of the clips; both fall linearly to zero.
    features: weight of the hidden states' distance from the unquantized model's, beside the divergence.
    texts: rows of text a step, of text_tokens each. keep: steps between two states that a killed run goes on from.
    recompute: activations of a block are computed again for the gradient instead of kept (needed from about a billion weights on).
    """

    method: Literal["learned"]  # type: ignore[assignment]
    start: Literal["rtn", "gptq", "fair_gptq"] = "rtn"
    alpha: float | None = Field(None, ge=0)
    steps: int = Field(200, gt=0)
    block_steps: int = Field(0, ge=0)
    rate: float = Field(0.005, gt=0, lt=1)
    clip_rate: float = Field(0.001, ge=0, lt=1)
    features: float = Field(0.0, ge=0)
    texts: int = Field(16, gt=0)
    text_tokens: int = Field(256, gt=1)
    keep: int = Field(50, gt=0)
    recompute: bool = False

    @model_validator(mode="after")
    def _alpha_of_a_fair_start(self) -> Learned:
        if (self.alpha is None) == (self.start == "fair_gptq"):
            raise ValueError("alpha belongs to start: fair_gptq, which needs it")
        return self

    def closed_form(self) -> Rtn:
        """The recipe of the start."""
        grid = {name: getattr(self, name) for name in Rtn.model_fields if name != "method"}
        if self.start == "fair_gptq":
            return FairGptq(method="fair_gptq", alpha=self.alpha, **grid)
        return Gptq(method="gptq", **grid) if self.start == "gptq" else Rtn(method="rtn", **grid)


class FairRound(Learned):
    """Learned rounding whose loss also holds the log-likelihoods of the pairs to parity.

    pairs: triples a step, in equal parts of every group; context: draw from context_pairs.jsonl too. pair_tokens: a triple with a longer
        sentence is left out, for all sentences of a step are as wide as the widest of all.
    parity, anchor, spread: the weights lambda, kappa and beta of the loss; tau: nats a token beyond which a preference counts in full.
    worst: how much more the groups farthest from parity weigh; 0: all alike.
    """

    method: Literal["fair_round"]  # type: ignore[assignment]
    pairs: int = Field(64, gt=0)
    context: bool = False
    pair_tokens: int = Field(32, gt=1)
    parity: float = Field(2.0, ge=0)
    anchor: float = Field(5.0, ge=0)
    spread: float = Field(0.0, ge=0)
    tau: float = Field(0.1, gt=0)
    worst: float = Field(4.0, ge=0)


METHODS: dict[str, type[Rtn]] = {"rtn": Rtn, "gptq": Gptq, "fair_gptq": FairGptq, "learned": Learned, "fair_round": FairRound}


def read_recipe(name: str, path: Path | str) -> Rtn:
    """Recipe `name` of the parameter file; unknown recipes, methods and parameters give the nearest right name."""
    data: Any = pick(read_params(path), f"recipes.{name}", kind="recipe", where=f"{path}:recipes")
    where = f"{path}:recipes.{name}"
    if not isinstance(data, dict):
        raise FairgateError(f"not a mapping of settings (got {data!r})", where=where, remedy="write at least `method:`")
    method = data.get("method")
    if method == "none":
        raise UnknownName("method 'none' is the unquantized base: there is nothing to quantize", where=where, remedy="name another recipe")
    if method not in METHODS:
        raise UnknownName.of("method", str(method), [*METHODS, "none"], where=where)
    return parse(METHODS[method], data, where=where)
