"""Model families as data (architectures.yaml), and the part of a model that a recipe debiases."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

from pydantic import Field

from fairgate.support.errors import FairgateError, UnknownName
from fairgate.support.params import Section, parse
from fairgate.support.strict_yaml import read_yaml

TABLE = Path(__file__).with_name("architectures.yaml")


class Architecture(Section):
    """What a block of one model family consists of."""

    name: str = Field(description="name of the family")
    model_types: list[str] = Field(description="`model_type` of config.json")
    blocks: str = Field(description="path of the list of blocks")
    groups: list[list[str]] = Field(min_length=1, description="linear modules in the order they run; one list shares its input")
    out: list[str] = Field(description="modules that write into the residual stream")
    without: list[str] = Field(default_factory=list, description="modules that no block of the family has")
    traced: bool = Field(False, description="made by tracer.py instead of read from the table")

    @property
    def modules(self) -> list[str]:
        """All linear modules of a block, by their name inside it."""
        return [module for group in self.groups for module in group]

    def kind(self, module: str) -> str:
        """The name by which the same module of all blocks is reported.

        It is the last part of the module's name, or the full name if two modules share that part.
        """
        leaf = _leaf(module)
        return leaf if [_leaf(name) for name in self.modules].count(leaf) == 1 else module


def architectures() -> list[Architecture]:
    """Every family of architectures.yaml."""
    table = read_yaml(TABLE).items()
    return [parse(Architecture, {"name": name, **entry}, where=f"{TABLE.name}:{name}") for name, entry in table]


def architecture_of(model_type: str, parts: Collection[str] = ()) -> Architecture:
    """The family of a Hugging Face `model_type` whose blocks have the modules `parts`.

    Raises:
        FairgateError: no family of the table fits; the message lists the supported ones.
    """
    for architecture in architectures():
        if model_type in architecture.model_types and not set(architecture.without).intersection(parts):
            return architecture
    raise FairgateError(
        f"unsupported architecture {model_type!r}",
        where="config.json: model_type",
        remedy=f"supported: {', '.join(supported())}, and dense decoders of the installed transformers that can be traced",
    )


def supported() -> list[str]:
    """Every `model_type` of the table."""
    return sorted({model_type for architecture in architectures() for model_type in architecture.model_types})


def debiased_modules(architecture: Architecture, modules: str | list[str]) -> set[str]:
    """Names, inside a block, of the modules that get the fairness term.

    Args:
        architecture: the family.
        modules: `all`, `out`, or a list of last parts of module names (`o_proj`).
    Raises:
        UnknownName: no such set or module.
    """
    if modules == "all":
        return set(architecture.modules)
    if modules == "out":
        return set(architecture.out)
    if isinstance(modules, str):
        raise UnknownName.of("module set", modules, ["all", "out"], where="recipe: modules")
    leaves = {_leaf(module) for module in architecture.modules}
    for leaf in modules:
        if leaf not in leaves:
            raise UnknownName.of("module", leaf, leaves, where="recipe: modules")
    return {module for module in architecture.modules if _leaf(module) in modules}


def debiased_blocks(n: int, subset: str) -> set[int]:
    """Numbers of the blocks that get the fairness term, out of n.

    Args:
        n: number of blocks.
        subset: `all`; or the k `lower` or `upper` blocks; or `lower+upper`, half of k each, where k
            is n / 10 rounded up to an even number.
    Raises:
        UnknownName: no such subset.
    """
    k = math.ceil(0.1 * n)
    k += k % 2
    k = min(k, n)
    subsets = {
        "all": range(n),
        "lower": range(k),
        "upper": range(n - k, n),
        "lower+upper": [*range(k // 2), *range(n - k // 2, n)],
    }
    if subset not in subsets:
        raise UnknownName.of("block subset", subset, subsets, where="recipe: blocks")
    return set(subsets[subset])


def _leaf(module: str) -> str:
    return module.rsplit(".", 1)[-1]
