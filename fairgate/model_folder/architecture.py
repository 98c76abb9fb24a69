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
from fairgate.support.positions import context_of

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
# What no stage may leave to a folder: flash and flex attention need a GPU, a package or a compiler.
_ATTENTION = (None, "eager", "sdpa")
# What training tools leave in front of every name.
_PREFIXES = ("module.", "_orig_mod.", "base_model.model.")


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
    _require_causal(config)
    _require_numbers(config)
    for key in ("attn_implementation", "_attn_implementation"):
        if stored.get(key) not in _ATTENTION:
            raise BadRecord(f"{key} is {stored[key]!r}", where=CONFIG, remedy=f"remove {key}: the choice belongs to who runs the model")
    _require_known_rope(config)
    if (layers := config.num_hidden_layers) > _MOST_LAYERS:
        raise BadRecord(f"num_hidden_layers is {layers}", where=CONFIG, remedy=f"no model has more than {_MOST_LAYERS}")
    _refuse_experts(config)
    return config


def require_generation_config(folder: Path) -> None:
    """Raise BadRecord if transformers stops at the folder's generation_config.json."""
    from transformers import GenerationConfig

    name = "generation_config.json"
    try:
        read_json(folder / name)
    except FairgateError:
        return  # none, or broken JSON: transformers goes on without it
    with reading("read it", where=name):
        GenerationConfig.from_pretrained(folder)


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
    if misnamed := _misnamed(info["missing_keys"], info["unexpected_keys"]):
        return [misnamed]
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


def _misnamed(missing: Iterable[str], unexpected: Iterable[str]) -> FairgateError | None:
    """What training left in the names, if it explains the missing tensors."""
    unknown, absent = set(unexpected), set(missing)
    if any(".lora_" in name or ".base_layer." in name for name in unknown):
        return FairgateError(
            "an adapter that is not merged: some tensors are its parts", remedy="merge it (peft: `merge_and_unload`) and save that"
        )
    for prefix in _PREFIXES:
        if unknown and all(name.startswith(prefix) for name in unknown) and any(f"{prefix}{name}" in unknown for name in absent):
            return BadRecord(
                f"every tensor has {prefix!r} before its name", remedy="save the model inside, without the wrapper of its training"
            )
    return None


def unknown_tensors(unexpected: Iterable[str]) -> list[str]:
    """Of the stored tensors that transformers does not use, those that are no buffers, sorted.

    Checkpoints of older versions hold masks and tables that are computed today.
    """
    return sorted(name for name in unexpected if not _OLD_BUFFERS.search(name))


def _require_causal(config: PreTrainedConfig) -> None:
    """Raise FairgateError if a token of the model sees later ones."""
    for key, causal in {"is_causal": True, "use_bidirectional_attention": False}.items():
        value = getattr(config, key, None)
        if value is not None and bool(value) != causal:
            what = f"{key} is {value!r}: a token of this model sees later ones"
            raise FairgateError(what, where=CONFIG, remedy="take a causal language model; an embedding model cannot be judged here")


def _require_numbers(config: PreTrainedConfig) -> None:
    """Raise BadRecord if a number is one with which no model computes."""
    if (context := context_of(config)) is not None and context < 1:
        raise BadRecord(f"max_position_embeddings is {context}", where=CONFIG, remedy="correct it: the model has at least one position")
    for key in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"):
        if isinstance(value := getattr(config, key, None), (int, float)) and value < 0:
            raise BadRecord(f"{key} is {value}", where=CONFIG, remedy="correct it: a negative number gives roots of negative numbers")


def require_finite_buffers(model: PreTrainedModel) -> None:
    """Raise BadRecord if what a skeleton computes from the configuration is not finite."""
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and not bool(buffer.isfinite().all()):
            remedy = "correct rope_theta, rope_parameters or what else it is computed from"
            raise BadRecord(f"the configuration gives {name} values that are not finite", where=CONFIG, remedy=remedy)


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
