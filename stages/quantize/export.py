"""Write a packed GPTQ checkpoint: the base's own tensors and files, with every quantized weight replaced by its packed form."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import safe_open
from torch import Tensor

from stages.common.gptq_format import pack
from stages.quantize.columns import Rounded
from stages.quantize.settings import Gptq, Rtn


def version_of(package: str) -> str:
    """Installed version; a bare GPU machine runs this folder without installing fairgate."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def packed(rounded: Rounded, recipe: Rtn) -> dict[str, Tensor]:
    """qweight, qzeros, scales, g_idx of one module."""
    return pack(rounded.codes, rounded.scale, rounded.zero.to(torch.int32), recipe.bits, recipe.group_size)


def write_checkpoint(base: Path, out: Path, modules: dict[str, dict[str, Tensor]], recipe: Rtn) -> tuple[int, int]:
    """Write the checkpoint into `out`; returns the bytes of the base's and of the packed weights.

    Args:
        modules: packed tensors by module name. A bias stays as it is.
    """
    state: dict[str, Tensor] = {}
    size = 0
    for name, tensor in _tensors(base):
        size += tensor.nbytes
        module = name.removesuffix(".weight")
        if module not in modules:
            state[name] = tensor
    for module, tensors in modules.items():
        state |= {f"{module}.{part}": tensor for part, tensor in tensors.items()}
    save_torch_state_dict(state, out, max_shard_size="5GB")
    for file in out.iterdir():
        file.chmod(0o644)  # the safetensors writer makes files private to the user
    for file in sorted(base.iterdir()):
        if file.is_file() and not file.name.endswith((".safetensors", ".safetensors.index.json")) and file.name != "SOURCE.json":
            shutil.copyfile(file, out / file.name)
    quantization = _quantization_config(recipe)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    _dump(out / "config.json", {**config, "quantization_config": quantization})
    _dump(out / "quantize_config.json", quantization)
    return size, sum(tensor.nbytes for tensor in state.values())


def _tensors(base: Path) -> Iterator[tuple[str, Tensor]]:
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (safe_open is no dict)
                yield name, tensors.get_tensor(name)


def _quantization_config(recipe: Rtn) -> dict[str, Any]:
    """The keys that transformers, gptqmodel and auto-gptq read."""
    return {
        "quant_method": "gptq",
        "bits": recipe.bits,
        "group_size": recipe.group_size,
        "desc_act": False,
        "sym": recipe.symmetric,
        "lm_head": False,
        "damp_percent": recipe.damping if isinstance(recipe, Gptq) else 0.01,
        "true_sequential": not isinstance(recipe, Gptq) or recipe.collection == "sequential",
        "static_groups": False,
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
        "meta": {"quantizer": [f"fairgate:{version_of('fairgate')}"]},
    }


def _dump(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
