"""What a method is: one module that alone knows its settings, data, needs, run and export keys.

Settings are read by commands that quantize nothing (`make release` checks them first), so a module
of a method imports torch and transformers inside its functions. A test holds it to that.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import Field, model_validator

from fairgate.support.params import Section

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from fairgate.contracts.contributions import Contribution
    from fairgate.contracts.records import ModuleRow, Training
    from stages.quantize.core.columns import Rounded
    from stages.quantize.core.compute import Compute
    from stages.quantize.model.architectures import Architecture
    from stages.quantize.model.streamed import Streamed

WIDTHS = (16, 32, 64, 128, 256)  # group sizes; -1 is a whole row


class Recipe(Section):
    """An entry of `recipes` in params.yaml."""

    method: str = Field(description="the way to choose codes")


class GridRecipe(Recipe):
    """A recipe that rounds every linear module to a grid: the settings that all of them share."""

    bits: Literal[2, 3, 4, 8] = Field(description="of a code")
    group_size: int = Field(description="input columns that share a scale; -1: the whole row")
    symmetric: bool = Field(description="the zero point is the middle code; false: it is fitted")
    clip: Literal["none", "mse"] = Field("none", description="`mse` shrinks each group's range to the least squared rounding error")
    bits_by_module: dict[str, Literal[2, 3, 4, 8]] = Field(
        default_factory=dict,
        description="pattern -> bits, where they differ; the first pattern counts that fits a module's full name or its last parts "
        "(`down_proj`, `layers.0.*`; `*` is any text)",
    )
    format: Literal["gptq", "gptq_v2"] = Field("gptq", description="of the checkpoint; `gptq` is v1")

    @model_validator(mode="after")
    def _known_width(self) -> GridRecipe:
        if self.group_size != -1 and self.group_size not in WIDTHS:
            raise ValueError(f"group_size must be -1 or one of {WIDTHS} (got {self.group_size})")
        return self

    @model_validator(mode="after")
    def _has_a_reader(self) -> GridRecipe:
        # transformers reads no bits by module, and gptqmodel no asymmetric v1 but its own.
        if self.bits_by_module and not self.symmetric and self.format == "gptq":
            raise ValueError("bits_by_module with symmetric: false needs format: gptq_v2, or no library loads the checkpoint")
        return self

    @property
    def dynamic(self) -> dict[str, dict[str, int]]:
        """`bits_by_module` as gptqmodel's checkpoints state it: regular expressions for the full
        name, matched from its start.
        """
        return {rf"+:(.*\.)?{'.*'.join(map(re.escape, name.split('*')))}$": {"bits": bits} for name, bits in self.bits_by_module.items()}


R = TypeVar("R", bound=Recipe)
G = TypeVar("G", bound=GridRecipe)
D = TypeVar("D")


@dataclass(frozen=True)
class Inputs(Generic[D]):
    """The data that a method reads: in the form that its run wants, counted, and what a reader of
    the record should know of them.
    """

    data: D
    pairs: int = 0
    texts: int = 0
    tokens: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Forecast:
    """What a run will need, in bytes.

    Args:
        cpu: main memory, on top of what is in use now.
        gpu: GPU memory, on top of what is in use now.
        out: disk space of the packed checkpoint.
        work: disk space of the unfinished run.
        leaner: the setting that needs less memory, for the remedy.
        fewer: what else needs less memory, for the remedy.
    """

    cpu: int
    gpu: int
    out: int
    work: int
    leaner: str = "`quantize.low_memory: true`"
    fewer: str = "fewer `calibrate.texts` need less"


@dataclass(frozen=True)
class QuantizedModule:
    """One quantized linear module and its row of `quantization.json`."""

    rounded: Rounded
    row: ModuleRow
    contributions: list[Contribution] = field(default_factory=list)


@dataclass(frozen=True)
class Block:
    """A quantized block.

    Args:
        index: its number.
        modules: in any order.
        hidden: the state after it [rows, L, d] of every batch; empty if no data are used.
    """

    index: int
    modules: list[QuantizedModule]
    hidden: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Resume:
    """Where a run goes on.

    Args:
        block: the first block that is not finished.
        start: the block that `hidden` enters; start <= block.
        hidden: one state [rows, L, d] a batch; none means that block `start` gets the embeddings.
    """

    block: int
    start: int
    hidden: list[Tensor]


class Cut(Section):
    """Batches smaller than asked for: at most `tokens` token slots each, and a note for every time
    that they were halved.
    """

    tokens: int
    notes: list[str]


class Store(Protocol):
    """Where a run keeps what it has finished, so that a run that was killed goes on from there."""

    def resume(self) -> Resume:
        """Where the run stands; sets the random generators to what they were there."""

    def add(self, block: Block) -> None:
        """Keep a finished block. Its hidden states must not be changed any more; none are kept if
        no later block reads them.
        """

    def flush(self) -> None:
        """Wait until everything is kept."""

    def packed(self, index: int) -> Mapping[str, Tensor]:
        """Packed tensors of a finished block, by full name."""

    def save_hidden(self, start: int, hidden: Sequence[Tensor]) -> None:
        """Keep the hidden states that enter block `start`; all blocks before it are finished."""

    def cut(self) -> Cut | None:
        """How batches were cut, in this process or one before it; None means as asked for."""

    def save_cut(self, cut: Cut) -> None:
        """Keep the size of batches that are smaller than asked for."""

    def keep(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Keep a state in the middle of a method's own steps; it replaces the one before."""

    def restored(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and values of the last state that was kept; None means there is none."""


class Method(ABC, Generic[R, D]):
    """One way to choose codes. R are its settings, D is what it reads."""

    name: ClassVar[str]  # the value of `method` in params.yaml
    settings: type[R]
    quantizes: ClassVar[bool] = True  # False: the model stays as it is, and no checkpoint is written

    def check(self, recipe: R, architecture: Architecture, blocks: int) -> None:
        """Raise UnknownName where the recipe names a module or a block that the model does not
        have.
        """

    def files(self, recipe: R) -> list[str]:
        """The files of the calibration folder that it reads."""
        return []

    @abstractmethod
    def read(self, recipe: R, base: Path, calibration: Path, *, batch_tokens: int, seed: int) -> Inputs[D]:
        """What it reads: of the folder `base` the tokenizer, and its files of the folder
        `calibration`.
        """

    def fit(self, recipe: R, source: Streamed, compute: Compute, data: D, limit: float) -> Compute:
        """How to run within `limit` bytes of GPU memory, where time can be traded for memory."""
        return compute

    @abstractmethod
    def forecast(self, recipe: R, source: Streamed, compute: Compute, data: D) -> Forecast:
        """What a run will need; of the model only shapes count."""

    def leaner(self, recipe: R, compute: Compute) -> tuple[R, Compute]:
        """The settings that need least memory, for the same weights."""
        return recipe, replace(compute, low_memory=True)

    @abstractmethod
    def run(self, recipe: R, source: Streamed, compute: Compute, data: D, store: Store) -> Training | None:
        """Quantize every block that `store` does not hold, and add it there; returns how learning
        went, if there was any.
        """

    def export_keys(self, recipe: R) -> dict[str, Any]:
        """What its checkpoint says of it in `quantization_config`, in the words of other GPTQ
        programs, which look for these keys.
        """
        return {"damp_percent": 0.01, "true_sequential": True, "static_groups": False}


METHODS: dict[str, Method[Any, Any]] = {}


def register(method: type[Method[R, D]]) -> type[Method[R, D]]:
    """Class decorator: make a method known by its name."""
    if method.name in METHODS:
        raise ValueError(f"two methods are called {method.name!r}")
    METHODS[method.name] = method()
    return method
