from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.quantize_7b import compute_here
from benchmarks.random_llama import make_model
from benchmarks.records import peak_gib
from stages.evaluate.model import load


def test_a_made_model_has_the_shape_asked_for_and_the_same_weights_each_time(tmp_path: Path) -> None:
    first, second = (load(make_model(tmp_path / name, 2, 128, 256), dtype="bfloat16", device="cpu").network for name in ("a", "b"))
    config = first.config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (2, 128, 256)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_scripts_run_on_the_cpu_and_record_no_gpu_memory() -> None:
    compute = compute_here()
    assert (compute.device.type, compute.dtype) == ("cpu", torch.float32)
    assert peak_gib() is None
