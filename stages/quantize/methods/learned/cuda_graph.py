"""A step's kernels as a CUDA graph: launched by Python once, then replayed with other numbers in
the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class GraphedStep:
    """A function of tensors that a GPU runs again without Python.

    A small model's step is thousands of short kernels, which a GPU finishes faster than Python can
    launch them. The first call records them, so every call needs inputs of the same shapes.

    Args:
        step: the function; it must not read numbers back from the GPU.
    """

    def __init__(self, step: Callable[..., tuple[Tensor, ...]]) -> None:
        self._step = step
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, which the next call overwrites."""
        if self._graph is None:
            self._graph = self._record(inputs)
        for place, values in zip(self._inputs, inputs, strict=True):
            place.copy_(values)
        self._graph.replay()
        return self._outputs

    def _record(self, inputs: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        self._inputs = [tensor.clone() for tensor in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is made on first use must not be made while recording
            self._step(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._outputs = self._step(*self._inputs)
        return graph
