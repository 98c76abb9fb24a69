"""Model families as data (architectures.yaml), and which modules and blocks of them a recipe debiases."""

from __future__ import annotations

import math
from collections.abc import Collection
from importlib.resources import files

import yaml
from pydantic import Field

from fairgate.support.errors import FairgateError, UnknownName
from fairgate.support.params import Section, parse


class Architecture(Section):
    """One family. `groups`: linear modules of a block in the order they run, those of one list share their input.

    `without`: modules that a block of the family does not have. `traced`: made by tracer.py instead of read from the table.
    """

    name: str
    model_types: list[str]
    blocks: str
    groups: list[list[str]] = Field(min_length=1)
    out: list[str]
    without: list[str] = Field(default_factory=list)
    traced: bool = False

    @property
    def modules(self) -> list[str]:
        """All linear modules of a block, by their name inside it."""
        return [module for group in self.groups for module in group]

    def kind(self, module: str) -> str:
        """What modules at the same place in every block are called: the leaf name, or the whole one where two share the leaf."""
        leaf = _leaf(module)
        return leaf if sum(_leaf(other) == leaf for other in self.modules) == 1 else module


def architectures() -> list[Architecture]:
    """Every family of architectures.yaml."""
    text = files("stages.quantize.model").joinpath("architectures.yaml").read_text(encoding="utf-8")
    table = yaml.safe_load(text).items()
    return [parse(Architecture, {"name": name, **entry}, where=f"architectures.yaml:{name}") for name, entry in table]


def architecture_of(model_type: str, parts: Collection[str] = ()) -> Architecture:
    """The family of a Hugging Face `model_type` whose blocks have the modules `parts`; FairgateError lists the supported ones."""
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
    """Names inside a block: `all`, `out`, or a list of exact leaf names (`o_proj`)."""
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
    """Block numbers of a subset of n blocks: `all`, `lower`, `upper`, `lower+upper` (k = ceil(n / 10), made even)."""
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
