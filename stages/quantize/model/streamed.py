"""A model on disk whose weights come into memory one block at a time.

Everything else in memory is a skeleton: parameters with a shape and no data.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from fairgate.support.errors import BadRecord
from stages.quantize.model.architectures import Architecture

_FETCH = "fetch the whole model again"


def skeleton(base: Path) -> PreTrainedModel:
    """The model in `base` with parameters that have a shape and no data.

    Buffers are computed and not stored, so they are real.
    """
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    with init_empty_weights(include_buffers=False):
        return cast(PreTrainedModel, AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval())


class Streamed:
    """The model in the folder `base`.

    `model` and `blocks` are skeletons, except inside `loaded_block` and `non_block_weights`.

    Raises:
        BadRecord: the checkpoint lacks a tensor, at the moment when it is needed.
    """

    def __init__(self, base: Path, architecture: Architecture) -> None:
        self.architecture = architecture
        self.model = skeleton(base)
        blocks = self.model.get_submodule(architecture.blocks)
        assert isinstance(blocks, nn.ModuleList)
        self.blocks = blocks
        self.base = base
        self._stored = self._names(base)
        self._reader = ThreadPoolExecutor(1, "weights")
        self._prefetched: dict[int, Future[dict[str, Tensor]]] = {}
        self._stream: torch.cuda.Stream | None = None

    @property
    def tied(self) -> bool:
        """Whether the output layer is the embedding's own tensor."""
        return bool(self.model.config.tie_word_embeddings)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The skeleton's parameters by name, without an output layer that is the embedding."""
        head = self.model.get_output_embeddings()
        tied_weight = head.weight if self.tied and head is not None else None
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter is not tied_weight}

    def require_whole(self) -> None:
        """Raise BadRecord unless every tensor that will be read is stored in the right shape.

        Headers alone are read. The output layer is not checked: it is copied under whatever name it
        has (GPT-NeoX stores another name than transformers uses).
        """
        head = self.model.get_output_embeddings()
        with ExitStack() as stack:
            files = {path: stack.enter_context(safe_open(path, framework="pt")) for path, _ in set(self._stored.values())}
            for name, parameter in self.model.named_parameters():
                if head is not None and parameter is head.weight:
                    continue
                if name not in self._stored:
                    raise BadRecord(f"no tensor {name}", where=str(self.base), remedy=_FETCH)
                path, stored = self._stored[name]
                if (shape := list(files[path].get_slice(stored).get_shape())) != list(parameter.shape):
                    what = f"tensor {stored} is {shape}, config.json makes it {list(parameter.shape)}"
                    raise BadRecord(what, where=str(path), remedy=_FETCH)

    @contextmanager
    def loaded_block(self, index: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[nn.Module]:
        """Block `index` on the device. Its weights are dropped afterwards.

        A GPU gets the weights of the next block while it works on this one.
        """
        prefetched = self._prefetched.pop(index, None)
        tensors = prefetched.result() if prefetched else self._block(index, device, dtype)
        if device.type == "cuda":
            for tensor in tensors.values():
                tensor.record_stream(torch.cuda.current_stream(device))
            if index + 1 < len(self.blocks):
                self._prefetched = {index + 1: self._reader.submit(self._block, index + 1, device, dtype)}
        with _filled(self.blocks[index], tensors, device):
            del tensors
            yield self.blocks[index]

    @contextmanager
    def non_block_weights(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[nn.Module]:
        """The model with the weights that run before its blocks on the device.

        These are all weights except those of the blocks and of the output layer.
        """
        excluded = {id(parameter) for parameter in self.blocks.parameters()}
        head: Any = self.model.get_output_embeddings()
        inputs: Any = self.model.get_input_embeddings()
        if head is not None and head.weight is not inputs.weight:
            excluded |= {id(parameter) for parameter in head.parameters()}
        names = [name for name, parameter in self.model.named_parameters() if id(parameter) not in excluded]
        with _filled(self.model, self._read("", names, device, dtype), device):
            yield self.model

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every stored tensor in its stored type, under the model's own name for it."""
        with ExitStack() as stack:
            files = {path: stack.enter_context(safe_open(path, framework="pt")) for path in {path for path, _ in self._stored.values()}}
            for name, (path, stored) in self._stored.items():
                yield name, files[path].get_tensor(stored)

    def _names(self, base: Path) -> dict[str, tuple[Path, str]]:
        """File and stored name of every tensor, by the model's name for it.

        A checkpoint may or may not carry the prefix of the model without its head.
        """
        expected = set(self.model.state_dict())
        prefix = f"{getattr(self.model, 'base_model_prefix', '')}."
        stored_as = {}
        for path in sorted(base.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for stored in file.keys():  # noqa: SIM118  (safe_open is no dict)
                    candidates = (stored, prefix + stored, stored.removeprefix(prefix))
                    stored_as[next((name for name in candidates if name in expected), stored)] = (path, stored)
        return stored_as

    def _block(self, index: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        prefix = f"{self.architecture.blocks}.{index}."
        names = [name for name, _ in self.blocks[index].named_parameters()]
        if device.type != "cuda":
            return self._read(prefix, names, device, dtype)
        # One stream for all blocks: only the stream that gave memory back can use it again.
        self._stream = self._stream or torch.cuda.Stream(device)
        with torch.cuda.stream(self._stream):
            tensors = self._read(prefix, names, device, dtype)
            self._stream.synchronize()
        return tensors

    def _read(self, prefix: str, names: list[str], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        tensors = {}
        with ExitStack() as stack:
            files = {}
            for name in names:
                if prefix + name not in self._stored:
                    raise BadRecord(f"no tensor {prefix + name}", where=str(self.base), remedy=_FETCH)
                path, stored = self._stored[prefix + name]
                if path not in files:
                    files[path] = stack.enter_context(safe_open(path, framework="pt"))
                tensor = files[path].get_tensor(stored)
                if device.type == "cuda":
                    tensor = tensor.pin_memory()  # a copy from pageable memory would block the other thread's launches
                tensors[name] = tensor.to(device, non_blocking=True).to(dtype, copy=device.type == "cpu")
        return tensors


@contextmanager
def _filled(module: nn.Module, tensors: dict[str, Tensor], device: torch.device) -> Iterator[None]:
    """The skeleton with data in it and its buffers on the device. A skeleton again afterwards."""
    names = list(tensors)
    module.load_state_dict(tensors, strict=False, assign=True)
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device)
    try:
        yield
    finally:
        empty = {name: module.get_parameter(name).to("meta") for name in names}
        module.load_state_dict(empty, strict=False, assign=True)
