"""Everything that can be known to fail before a weight is loaded."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fairgate.contracts.gptq_format import GPTQMODEL_ONLY, bits_of
from fairgate.model_folder.architecture import read_config, skeleton
from fairgate.model_folder.check import check_folder
from fairgate.model_folder.files import CONFIG
from fairgate.support.errors import FairgateError, MissingFile, UnknownName
from fairgate.support.files import read_json
from stages.quantize.methods.base import METHODS, WIDTHS, GridRecipe
from stages.quantize.model.architectures import Architecture, architecture_of, supported
from stages.quantize.model.calibration_pass import linear, weight_of
from stages.quantize.model.tracer import linears, trace


def preflight(base: Path, recipe: GridRecipe) -> Architecture:
    """Check the whole model, its values too, then architecture, shapes and groups.

    A family that is not in the table is traced, which loads two blocks.

    Disk and memory are looked at by `resources`, once the data are counted.

    Raises:
        MissingFile: no model in `base`.
        FairgateError: an unfit model (`fairgate.model_folder.check`), an unsupported architecture,
            or a layer that the grid does not divide, with the group sizes that do.
        UnknownName: a module or a subset of blocks that the model does not have. The output layer
            and the embeddings are none of them.
    """
    if not (base / CONFIG).is_file():
        raise MissingFile("no model here", where=str(base), remedy="run `dvc repro fetch`")
    model_type = str(read_json(base / CONFIG, written_by="fetch").get("model_type"))
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        architecture_of(model_type)  # raises, with the families that are supported
    check_folder(base, values=True, bits=min([recipe.bits, *recipe.bits_by_module.values()])).require_fit()
    config = read_config(base)
    if model_type in GPTQMODEL_ONLY and not recipe.symmetric and recipe.format == "gptq":
        what = f"no library loads a packed {model_type!r} with symmetric: false in format gptq"
        raise FairgateError(what, where="recipe", remedy="take format: gptq_v2, or symmetric: true")
    model = skeleton(config)
    architecture = _architecture(base, model, model_type)
    blocks = model.get_submodule(architecture.blocks)
    for pattern, regex in zip(recipe.bits_by_module, recipe.dynamic, strict=True):
        names = [f"{architecture.blocks}.{index}.{name}" for index in range(len(list(blocks.children()))) for name in architecture.modules]
        if not any(bits_of(name, 0, {regex: {"bits": 1}}) for name in names):
            leaves = {name.rsplit(".", 1)[-1] for name in architecture.modules}
            raise UnknownName.of("module pattern", pattern, leaves, where="bits_by_module")
    METHODS[recipe.method].check(recipe, architecture, len(list(blocks.children())))
    for index, block in enumerate(blocks.children()):
        where = f"{architecture.blocks}.{index}"
        if differing := set(linears(block)).symmetric_difference(architecture.modules):
            what = f"linear modules are not those of {architecture.name!r}; the difference: {', '.join(sorted(differing))}"
            raise FairgateError(what, where=where, remedy="this variant needs an entry in stages/quantize/model/architectures.yaml")
        for name in architecture.modules:
            r, d = weight_of(linear(block, name)).shape
            _fits(f"{where}.{name}", r, d, recipe)
    return architecture


def _architecture(base: Path, model: PreTrainedModel, model_type: str) -> Architecture:
    if model_type not in supported():
        return trace(base, model, model_type)
    block = next(model.get_submodule(architecture_of(model_type).blocks).children())
    return architecture_of(model_type, {name for name, _ in block.named_modules()})


def _fits(name: str, r: int, d: int, recipe: GridRecipe) -> None:
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
