"""Write a packed GPTQ checkpoint: the base's own tensors and files, with every quantized weight
replaced by its packed form.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from torch import Tensor

from fairgate.model_folder.files import text_names
from stages.quantize.methods.base import METHODS, GridRecipe
from stages.quantize.model.architectures import Architecture

Named = Iterable[tuple[str, Tensor]]


def version_of(package: str) -> str:
    """Installed version; a bare GPU machine runs this folder without installing fairgate."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def write_checkpoint(
    base: Path, out: Path, weights: Named, packed_weights: Named, modules: set[str], recipe: GridRecipe, architecture: Architecture
) -> tuple[int, int]:
    """Write the checkpoint into `out`; returns the bytes of the base's and of the packed weights.

    Args:
        weights: the base's tensors by name.
        packed_weights: the packed tensors of every module in `modules`. A bias stays as it is.
    """
    state: dict[str, Tensor] = {}
    size = 0
    for name, tensor in weights:
        size += tensor.nbytes
        if name.removesuffix(".weight") not in modules:
            state[name] = tensor
    state |= dict(packed_weights)
    save_torch_state_dict(state, out, max_shard_size="5GB")
    for file in out.iterdir():
        file.chmod(0o644)  # the safetensors writer makes files private to the user
    for name in text_names(file.name for file in base.iterdir() if file.is_file()):
        if name != "SOURCE.json":
            shutil.copyfile(base / name, out / name)
    quantization = _quantization_config(recipe, architecture)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    _dump(out / "config.json", {**config, "quantization_config": quantization})
    _dump(out / "quantize_config.json", quantization)
    return size, sum(tensor.nbytes for tensor in state.values())


def _quantization_config(recipe: GridRecipe, architecture: Architecture) -> dict[str, Any]:
    """The keys that transformers, gptqmodel and auto-gptq read."""
    config: dict[str, Any] = {
        "quant_method": "gptq",
        "bits": recipe.bits,
        "group_size": recipe.group_size,
        "desc_act": False,
        "sym": recipe.symmetric,
        "lm_head": False,
        **METHODS[recipe.method].export_keys(recipe),
        "checkpoint_format": recipe.format,
        "pack_dtype": "int32",
        "meta": {"quantizer": [f"fairgate:{version_of('fairgate')}"]},
    }
    if recipe.dynamic:
        config["dynamic"] = recipe.dynamic
    if architecture.traced:  # transformers looks for the blocks in a few usual places
        config["block_name_to_quantize"] = architecture.blocks
    return config


def _dump(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
