"""A model on disk whose weights come into memory one block at a time.

Everything else in memory is a skeleton: parameters with a shape and no data.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fairgate.model_folder.architecture import read_config, skeleton
from fairgate.model_folder.names import output_is_embedding, stored_names, with_ties
from fairgate.model_folder.weights import read_weights
from stages.quantize.model.architectures import Architecture


class Streamed:
    """The model in the folder `base`.

    `model` and `blocks` are skeletons, except inside `loaded_block` and `non_block_weights`.

    Raises:
        BadRecord: the checkpoint lacks a tensor, at the moment when it is needed.
    """

    def __init__(self, base: Path, architecture: Architecture) -> None:
        self.architecture = architecture
        self.weights = read_weights(base)
        self.model = skeleton(read_config(base))
        blocks = self.model.get_submodule(architecture.blocks)
        assert isinstance(blocks, nn.ModuleList)
        self.blocks = blocks
        self.base = base
        self._names = with_ties(stored_names(self.weights, self.model), self.model)
        self._reader = ThreadPoolExecutor(1, "weights")
        self._prefetched: dict[int, Future[dict[str, Tensor]]] = {}
        self._stream: torch.cuda.Stream | None = None

    @cached_property
    def tied(self) -> bool:
        """Whether the output layer is the embedding's own tensor, by what is stored."""
        return output_is_embedding(self.weights, self.model)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The skeleton's parameters by name, without an output layer that is the embedding."""
        head = self.model.get_output_embeddings()
        tied_weight = head.weight if self.tied and head is not None else None
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter is not tied_weight}

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
        with self.weights.opened() as opened:
            for name, stored in stored_names(self.weights, self.model).items():
                yield name, opened.tensor(stored)

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
        with self.weights.opened() as opened:
            for name in names:
                tensor = opened.tensor(self._names.get(prefix + name, prefix + name))
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
