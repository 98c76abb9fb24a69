"""Everything that can be known to fail before a weight is loaded."""

from __future__ import annotations

from pathlib import Path

from stages.common.errors import FairgateError, MissingFile, UnknownName
from stages.common.files import read_json, require_space, require_whole_weights
from stages.common.gptq_format import bits_of
from stages.quantize.architectures import Architecture, architecture_of
from stages.quantize.settings import WIDTHS, Rtn
from stages.quantize.streamed import skeleton
from stages.quantize.walk import linear, weight_of


def preflight(base: Path, out: Path, recipe: Rtn) -> Architecture:
    """Check model, architecture, shapes, groups and disk space.

    Raises:
        MissingFile: no model in `base`. FairgateError: already quantized, unsupported architecture, a layer that the grid does not
        divide (with the group sizes that do), or too little disk space.
    """
    if not (base / "config.json").is_file():
        raise MissingFile("no model here", where=str(base), remedy="run `dvc repro fetch`")
    stored = read_json(base / "config.json", written_by="fetch")
    if stored.get("quantization_config") is not None:
        remedy = "start from its full-precision version"
        raise FairgateError("the model is already quantized", where=str(base / "config.json"), remedy=remedy)
    # Before transformers sees the folder: it would fail on a type it does not know, or ask to run the model's own code.
    model_type = str(stored.get("model_type"))
    architecture = architecture_of(model_type)
    blocks = skeleton(base).get_submodule(architecture.blocks)
    architecture = architecture_of(model_type, {name for name, _ in next(blocks.children()).named_modules()})
    for pattern, regex in zip(recipe.bits_by_module, recipe.dynamic, strict=True):
        names = [f"{architecture.blocks}.{index}.{name}" for index in range(len(list(blocks.children()))) for name in architecture.modules]
        if not any(bits_of(name, 0, {regex: {"bits": 1}}) for name in names):
            leaves = {name.rsplit(".", 1)[-1] for name in architecture.modules}
            raise UnknownName.of("module pattern", pattern, leaves, where="bits_by_module")
    for index, block in enumerate(blocks.children()):
        for name in architecture.modules:
            r, d = weight_of(linear(block, name)).shape
            _fits(f"{architecture.blocks}.{index}.{name}", r, d, recipe)
    require_whole_weights(base, remedy="run `dvc repro fetch`")
    size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    require_space(out, size, what="the packed checkpoint")
    return architecture


def _fits(name: str, r: int, d: int, recipe: Rtn) -> None:
    width = recipe.group_size
    if width != -1 and d % width:
        fitting = [w for w in WIDTHS if d % w == 0]
        raise FairgateError(
            f"group_size {width} does not divide the {d} inputs",
            where=name,
            remedy=f"group sizes that fit this layer: {', '.join(map(str, [*fitting, -1]))} (-1: one scale a row)",
        )
    if d % 32 or r % 32:
        remedy = "the GPTQ layout needs multiples of 32 both ways"
        raise FairgateError(f"shape {r} x {d} does not fill 32-bit words", where=name, remedy=remedy)
