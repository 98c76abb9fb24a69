"""Whether transformers can build the model and fill it with the folder's tensors.

No tensor is read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fairgate.model_folder.files import CONFIG
from fairgate.model_folder.weights import Weights
from fairgate.support.errors import BadRecord, FairgateError, UnknownName
from fairgate.support.files import read_json
from fairgate.support.library_errors import translated

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Where transformers looks for the configuration of a language model inside that of a larger model.
_INNER = ("text_config", "decoder", "generator", "text_encoder")
_SHOWN = 3
_OLD_BUFFERS = re.compile(r"(^|\.)(inv_freq|masked_bias|(attn|attention)\.bias|position_ids|token_type_ids)$")
# The largest models have about 130 (judgment); a thousand take half a minute to build.
_MOST_LAYERS = 300
# What a model gives back, and in which form. transformers takes any value, and acts on it.
_OUTPUTS = {"output_hidden_states": (True, False), "output_attentions": (True, False), "return_dict": (True,)}


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of a causal language model.

    Raises:
        BadRecord: transformers cannot read it, or build a model by it.
        FairgateError: an unknown architecture, no causal language model, a multimodal one, or a
            Mixture of Experts.
    """
    import transformers
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    stored = read_json(folder / CONFIG)
    if not isinstance(stored, dict) or not isinstance(stored.get("model_type"), str) or stored["model_type"] not in CONFIG_MAPPING:
        model_type = stored.get("model_type") if isinstance(stored, dict) else None
        what = f"no architecture that transformers {transformers.__version__} has (model_type {model_type!r})"
        raise FairgateError(what, where=CONFIG, remedy="see docs/methods.md, Architectures; code of a model is never run")
    config: PreTrainedConfig
    with reading("read it"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        # It does not look at the type of a key under its other name (gpt2: num_hidden_layers).
        type(config).from_dict({str(config.attribute_map.get(key, key)): value for key, value in stored.items()})
    if "text_config" in config.sub_configs:
        what = f"{config.model_type!r} is a multimodal model with a language model inside"
        remedy = "save its language model alone as a causal language model (of gemma3: Gemma3ForCausalLM, type gemma3_text)"
        raise FairgateError(what, where=CONFIG, remedy=remedy)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise FairgateError(f"{config.model_type!r} is no causal language model", where=CONFIG, remedy="see docs/methods.md, Architectures")
    if inner := [key for key in _INNER if getattr(config, key, None) is not None]:
        what = f"another configuration inside, {inner[0]!r}, which {config.model_type!r} does not have"
        raise BadRecord(what, where=CONFIG, remedy=f"remove {inner[0]!r}")
    for key, usable in _OUTPUTS.items():
        if (value := getattr(config, key)) not in usable or not isinstance(value, bool):
            raise BadRecord(f"{key} is {value!r}", where=CONFIG, remedy=f"remove {key}")
    _require_known_rope(config)
    if (layers := config.num_hidden_layers) > _MOST_LAYERS:
        raise BadRecord(f"num_hidden_layers is {layers}", where=CONFIG, remedy=f"no model has more than {_MOST_LAYERS}")
    _refuse_experts(config)
    return config


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """The model with parameters that have a shape and no data.

    Buffers are computed and not stored, so they are real.
    """
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with reading("build the model"), init_empty_weights(include_buffers=False):
        return cast("PreTrainedModel", AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval())


def faults_of_tensors(weights: Weights, config: PreTrainedConfig) -> list[FairgateError]:
    """What transformers would miss, leave out or find of another shape when it loads the folder."""
    from transformers import AutoModelForCausalLM

    options: Any = {"device_map": "meta", "ignore_mismatched_sizes": True, "output_loading_info": True}
    with reading("load the weights"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(weights.folder, config=config, trust_remote_code=False, **options)
    info = loaded[1]
    remedy = "configuration and weights are of different models, or the weights are incomplete: fetch or save the whole model again"
    faults: list[FairgateError] = []
    if missing := sorted(info["missing_keys"]):
        faults.append(BadRecord(f"{len(missing)} tensors are missing: {_some(missing)}", remedy=remedy))
    if unexpected := unknown_tensors(info["unexpected_keys"]):
        remedy_of_more = "remove them (a head for multi-token prediction, say), or correct the configuration; transformers ignores them"
        what = f"{len(unexpected)} tensors are unknown to the architecture {config.model_type!r}: {_some(unexpected)}"
        faults.append(BadRecord(what, remedy=remedy_of_more))
    if mismatched := sorted(info["mismatched_keys"], key=str):
        name, stored, wanted = mismatched[0]
        what = f"{len(mismatched)} tensors have another shape than {CONFIG} gives them: {name} is {list(stored)}, not {list(wanted)}"
        faults.append(BadRecord(what, remedy=remedy))
    return faults


def unknown_tensors(unexpected: Iterable[str]) -> list[str]:
    """Of the stored tensors that transformers does not use, those that are no buffers, sorted.

    Checkpoints of older versions hold masks and tables that are computed today.
    """
    return sorted(name for name in unexpected if not _OLD_BUFFERS.search(name))


def _require_known_rope(config: PreTrainedConfig) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    settings = getattr(config, "rope_parameters", None) or {}
    known = {"default", *ROPE_INIT_FUNCTIONS}
    # One mapping, or one for each kind of layer.
    for rope in [settings, *settings.values()] if isinstance(settings, dict) else []:
        kind = rope.get("rope_type", "default") if isinstance(rope, dict) else "default"
        if kind not in known:
            raise UnknownName.of("rope_type", str(kind), known, where=f"{CONFIG}, rope_parameters")


def _refuse_experts(config: PreTrainedConfig) -> None:
    """Raise FairgateError if the model is a Mixture of Experts."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    # Without values: drawing them, even of no data, takes half of the time.
    with reading("build the model"), torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(config)
    for name, module in model.named_modules():
        if "expert" in f"{name} {type(module).__name__}".lower():
            what = f"{config.model_type!r} is a Mixture-of-Experts model ({name}: {type(module).__name__})"
            remedy = "take a dense decoder: an expert would see a few of the calibration tokens only"
            raise FairgateError(what, where=CONFIG, remedy=remedy)


@contextmanager
def reading(purpose: str, *, where: str = CONFIG) -> Iterator[None]:
    """What transformers raises inside, as a FairgateError that says what it could not do.

    Whatever it raises says that the folder's content does not suit it.
    """
    import transformers

    remedy = f"correct the value that it names; transformers {transformers.__version__} must be able to load the folder"
    with quiet(), translated(f"transformers cannot {purpose}", where=where, remedy=remedy):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars, tables and warnings of transformers and what it imports."""
    from transformers.utils import logging as transformers_logging

    before, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    imported = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in imported]
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    for logger in imported:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        for logger, level in zip(imported, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
