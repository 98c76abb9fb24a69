"""Load a model for scoring: an ordinary folder as it is, a packed GPTQ checkpoint unpacked once."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, GPTQConfig
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from fairgate.contracts.gptq_format import GPTQMODEL_ONLY, LOWEST_ZERO, NAMES, bits_of, unpack
from fairgate.model_folder.architecture import read_config, unknown_tensors
from fairgate.model_folder.tokenizer import load_tokenizer
from fairgate.model_folder.weights import Weights, read_weights
from fairgate.support.devices import pick_device, pick_dtype
from fairgate.support.errors import FairgateError, MissingFile
from fairgate.support.files import read_json
from fairgate.support.library_errors import translated
from fairgate.support.log import log
from fairgate.support.positions import context_of, setting, thresholds_of
from stages.evaluate.rows import Packing

# How far the packed kernel's logits may be from those of the unpacked weights, as a share of the
# logits' spread (both centered over the vocabulary, root mean square). The CPU kernel rounds inputs
# and scales to bfloat16: about 0.01 on SmolLM2-135M, where 4-bit rounding itself moves the logits
# by 0.25 to 0.45.
KERNEL_TOLERANCE = 0.05
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_SAMPLE = "The nurse who worked at the old harbour gave the engineer a map and said that it was right."


@dataclass(frozen=True)
class Model:
    """A causal language model split at the vocabulary: hidden states, then logits of chosen places.

    device: of the weights.
    context: number of positions that the model has.
    packed: whether the weights came out of a packed checkpoint.
    packing: which texts may share a row or a batch.
    """

    network: Any
    tokenizer: Any
    device: torch.device
    context: int
    packed: bool
    packing: Packing = field(default_factory=Packing)

    @property
    def dtype(self) -> str:
        """Of weights and activations, as torch names it."""
        return str(self.network.dtype).removeprefix("torch.")

    def attention(self) -> AbstractContextManager[None]:
        """Without cuDNN, which plans again for every shape, and every batch has its own."""
        return sdpa_kernel(_ATTENTION) if self.device.type == "cuda" else nullcontext()

    def hidden(self, ids: Tensor, positions: Tensor | None = None, bounds: Tensor | None = None) -> Tensor:
        """Input of the output embedding, [B, L, width].

        Args:
            ids: [B, L]
            positions: [B, L]. None means 0, 1, 2, ...
            bounds: [B, L]; place i attends to j <= i < bounds[j]. None means every earlier place.
        """
        mask = None
        if bounds is not None:
            dtype, places = self.network.dtype, torch.arange(ids.shape[1], device=ids.device)
            hides = (places[:, None] < places) | (places[:, None] >= bounds[:, None])
            mask = torch.zeros(hides.shape, dtype=dtype, device=ids.device).masked_fill_(hides, torch.finfo(dtype).min)[:, None]
        with self.attention():
            network = self.network.base_model
            return network(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False).last_hidden_state

    def logits(self, states: Tensor) -> Tensor:
        """[n, width] -> [n, vocabulary]; float32 on a GPU, which adds up in it anyway."""
        head = self.network.get_output_embeddings()
        if states.is_cuda and states.dtype != torch.float32 and type(head) is torch.nn.Linear and head.bias is None:
            logits = torch.mm(states, head.weight.T, out_dtype=torch.float32)
        else:
            logits = head(states)
        cap = setting(self.network.config, "final_logit_softcapping")  # Gemma 2
        return logits if cap is None else cap * torch.tanh(logits / cap)


def load(folder: Path, *, dtype: str, device: str) -> Model:
    """Load a Hugging Face folder; packed modules are dequantized to plain matrices.

    Raises:
        MissingFile: no model there.
        FairgateError: another quantization than GPTQ, or an architecture that changes its logits
            after the output embedding.
    """
    if not (folder / "config.json").is_file():
        raise MissingFile("no model (config.json) in this folder", where=str(folder), remedy="run `dvc repro` for the stage that makes it")
    config = read_config(folder)
    target = pick_device(device, parameter="evaluate.device")
    weights = read_weights(folder, remedy="run `dvc repro` for the stage that makes it")
    quantization = getattr(config, "quantization_config", None)
    if quantization:
        del config.quantization_config
    if (context := context_of(config)) is None:
        remedy = "models with positions of another kind (Bloom, MPT) can be quantized, but not evaluated"
        raise FairgateError(f"no max_position_embeddings for {config.model_type!r}", where=str(folder / "config.json"), remedy=remedy)
    transformers_logging.disable_progress_bar()
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    state = _unpacked(weights, quantization, _transposed(kind, config)) if quantization else None
    network, report = kind.from_pretrained(
        None if state else folder, config=config, state_dict=state, dtype=pick_dtype(dtype, target, native=True), output_loading_info=True
    )
    if wrong := sorted(report["missing_keys"]) + unknown_tensors(report["unexpected_keys"]):
        raise FairgateError(
            f"{len(wrong)} weights are missing or unknown, first {wrong[0]!r}", where=str(folder), remedy="the checkpoint is incomplete"
        )
    tokenizer = load_tokenizer(folder)
    packing = Packing(0 if setting(config, "alibi") else setting(config, "sliding_window"), thresholds_of(config))
    model = Model(network.eval().to(target), tokenizer, target, context, state is not None, packing)
    _check_split(model, folder)
    return model


def kernel_difference(model: Model, folder: Path) -> float:
    """How far the packed kernel's logits are from those of the unpacked weights.

    Measured on a sentence, as a share of the spread of the logits. There is no difference if all
    logits of both are equal.

    Raises:
        FairgateError: further than KERNEL_TOLERANCE; the packed file would serve another model than
            the one that was judged. Or the logits are not numbers.
    """
    with redirect_stdout(io.StringIO()):  # gptqmodel prints a banner
        packed = _packed_network(folder, model.device)
    ids = model.tokenizer(_SAMPLE, return_tensors="pt").input_ids[:, : model.context].to(model.device)
    with torch.inference_mode():
        theirs, ours = (_centered(network(input_ids=ids).logits) for network in (packed, model.network))
    apart, spread = (theirs - ours).norm(), ours.norm()
    if not spread.isfinite():
        what, remedy = "the logits of the unpacked weights are not numbers", "the weights overflow: look at the quantization record"
        raise FairgateError(what, where=str(folder), remedy=remedy)
    if not theirs.isfinite().all():
        remedy = "activations overflow the float16 in which packed kernels compute: this model needs kernels of bfloat16"
        raise FairgateError("the logits of the packed kernel are not numbers", where=str(folder), remedy=remedy)
    if apart == spread == 0:
        log.warning("%s: all logits are equal: the model predicts nothing, and its packed kernel agrees", folder)
        return 0.0
    difference = float(apart / spread)
    if not difference <= KERNEL_TOLERANCE:
        raise FairgateError(
            f"logits of the packed kernel differ by {difference:.3g} of their spread, {KERNEL_TOLERANCE} is allowed",
            where=str(folder),
            remedy="the packed file does not say what its weights say: run `dvc repro quantize` again",
        )
    return difference


def _packed_network(folder: Path, device: torch.device) -> Any:
    """The network with the kernels that serve a packed checkpoint."""
    config = read_json(folder / "config.json")
    settings = config["quantization_config"]
    cpu = device.type == "cpu"
    # transformers reads one number of bits for all modules, gptqmodel one for each.
    if settings.get("dynamic") or config["model_type"] in GPTQMODEL_ONLY:
        from gptqmodel import BACKEND, GPTQModel

        backend = BACKEND.GPTQ_TORCH if cpu else BACKEND.AUTO
        return GPTQModel.load(str(folder), backend=backend, device=str(device), dtype=torch.float16).model.eval()
    options = {}
    if cpu and settings["group_size"] in (16, -1):  # the default int4 kernel fails on these groups
        options = {"quantization_config": GPTQConfig(bits=settings["bits"], backend="gptq_torch")}
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16, trust_remote_code=False, **options)
    return network.eval().to(device)


def _centered(logits: Tensor) -> Tensor:
    """Logits minus their mean, on which no probability depends."""
    return logits.float() - logits.float().mean(-1, keepdim=True)


def _transposed(kind: Any, config: Any) -> set[str]:
    """Names of the modules that keep their weight as [in, out] (GPT-2)."""
    with torch.device("meta"):
        return {name for name, module in kind(config).named_modules() if isinstance(module, Conv1D)}


def _unpacked(weights: Weights, quantization: Any, transposed: set[str]) -> dict[str, Tensor]:
    """All tensors of a packed checkpoint; the four of each packed module become its weight."""
    folder, settings = weights.folder, quantization if isinstance(quantization, dict) else quantization.to_dict()
    form = settings.get("checkpoint_format", "gptq")
    if settings.get("quant_method") != "gptq" or form not in LOWEST_ZERO:
        kind = f"{settings.get('quant_method')} / {form}"
        raise FairgateError(f"quantization {kind!r}", where=str(folder / "config.json"), remedy=f"read are gptq / {', '.join(LOWEST_ZERO)}")
    with weights.opened() as opened:
        stored = {name: opened.tensor(name) for name in weights.tensors}
    modules = sorted(name.removesuffix(".qweight") for name in stored if name.endswith(".qweight"))
    if not modules:
        raise FairgateError(
            "config.json names a quantization, but no module is packed", where=str(folder), remedy="run `dvc repro quantize`"
        )
    for module in modules:
        if lacking := [part for part in NAMES if f"{module}.{part}" not in stored]:
            remedy = "run `dvc repro quantize`"
            raise FairgateError(f"no {', '.join(lacking)} of {module}", where=str(folder), remedy=remedy)
        parts = {part: stored.pop(f"{module}.{part}") for part in NAMES}
        weight = unpack(parts, bits_of(module, int(settings["bits"]), settings.get("dynamic")), form)
        stored[f"{module}.weight"] = weight.T.contiguous() if module in transposed else weight
    return stored


def _check_split(model: Model, folder: Path) -> None:
    """Hidden states times output embedding must be the model's own logits."""
    ids = model.tokenizer(_SAMPLE, return_tensors="pt").input_ids[:, :8].to(model.device)
    remedy = "correct the value in config.json, or take the model as its authors published it"
    with torch.inference_mode(), model.attention():
        with translated("transformers loads the model and cannot run it", where=str(folder), remedy=remedy):
            whole = model.network(input_ids=ids, use_cache=False).logits.float()
        split = model.logits(model.hidden(ids).flatten(0, 1)).view_as(whole).float()
    rounding = max(1e-3, 2 * torch.finfo(model.network.dtype).eps)
    if not torch.allclose(whole, split, atol=rounding, rtol=rounding, equal_nan=True):
        raise FairgateError(
            "this architecture changes its logits after the output embedding",
            where=str(folder),
            remedy="see docs/methods.md, Architectures",
        )
