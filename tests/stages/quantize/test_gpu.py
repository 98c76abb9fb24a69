"""The same stage on a GPU: run with `pytest -m gpu` where there is one."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from fairgate.contracts.gptq_format import unpack
from fairgate.contracts.records import Quantization
from stages.quantize.methods.closed_form import blocks
from stages.quantize.run.store import BlockStore
from stages.quantize.settings import RunSettings, parse_recipe
from stages.quantize.stage import quantize
from tests.tiny import make_tiny_llama

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

RECIPE = parse_recipe({"method": "fair_gptq", "bits": 4, "group_size": 32, "symmetric": True, "alpha": 0.5}, where="test")


def _quantize(device: str, base: Path, calibration: Path, out: Path, **settings: object) -> Quantization:
    run = RunSettings.model_validate({"device": device, "seed": 0, "batch_tokens": 256, **settings})
    return quantize("test", RECIPE, run, base, calibration, out, out.parent / "work")


def _weight(folder: Path, module: str) -> torch.Tensor:
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    return unpack({part: tensors[f"{module}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")}, 4)


def test_gpu_repeats_itself_and_agrees_with_the_cpu(llama: Path, calibration: Path, tmp_path: Path) -> None:
    first = _quantize("cuda", llama, calibration, tmp_path / "first")
    second = _quantize("cuda", llama, calibration, tmp_path / "second")
    assert first.weight_digest == second.weight_digest
    assert first.versions["gpu"]

    low = _quantize("cuda", llama, calibration, tmp_path / "low", low_memory=True)
    assert low.weight_digest == first.weight_digest

    cpu = _quantize("cpu", llama, calibration, tmp_path / "cpu")
    gpu = _quantize("cuda", llama, calibration, tmp_path / "gpu", dtype="float32")
    for ours, theirs in zip(cpu.modules, gpu.modules, strict=True):
        # Sums run in another order, and a weight on a rounding boundary may fall either way; later
        # blocks see the consequences.
        assert theirs.loss == pytest.approx(ours.loss, rel=0.05)
    name = cpu.modules[0].name
    same = (_weight(tmp_path / "cpu", name) - _weight(tmp_path / "gpu", name)).abs() < 1e-4
    assert same.float().mean() > 0.98


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
def test_two_gpus_repeat_themselves_and_agree_with_one(llama: Path, calibration: Path, tmp_path: Path) -> None:
    first, second = (_quantize("cuda", llama, calibration, tmp_path / name, gpus=2) for name in ("first", "second"))
    assert first.weight_digest == second.weight_digest
    one = _quantize("cuda", llama, calibration, tmp_path / "one")
    for ours, theirs in zip(first.modules, one.modules, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=0.05)


@pytest.mark.parametrize("written", [[], [1]], ids=str)
@pytest.mark.parametrize("low_memory", [False, True])
def test_an_interrupted_run_ends_with_the_same_weights(
    low_memory: bool, written: list[int], calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block 2 of 3 is interrupted, the hidden states on the disk are those before the blocks
    `written`: none but the embeddings, or 1.
    """
    base = make_tiny_llama(tmp_path / "base", layers=3)
    whole = _quantize("cuda", base, calibration, tmp_path / "whole" / "out", low_memory=low_memory)
    own_block, own_save = blocks.quantize_block, BlockStore.save_hidden

    def interrupted(replicas: Any, index: int, *rest: Any, **more: Any) -> None:
        if index == 2:
            raise KeyboardInterrupt
        own_block(replicas, index, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "quantize_block", interrupted)
        patch.setattr(BlockStore, "save_hidden", lambda self, start, hidden: own_save(self, start, hidden) if start in written else None)
        with pytest.raises(KeyboardInterrupt):
            _quantize("cuda", base, calibration, tmp_path / "out", low_memory=low_memory)
    assert (tmp_path / "work" / "hidden.safetensors").exists() == bool(written)
    again: list[int] = []
    own_finished = blocks.forward_finished
    monkeypatch.setattr(
        blocks, "forward_finished", lambda replicas, index, batches: again.append(index) or own_finished(replicas, index, batches)
    )
    assert _quantize("cuda", base, calibration, tmp_path / "out", low_memory=low_memory).weight_digest == whole.weight_digest
    assert again == ([1] if written else [0, 1])


def test_no_more_memory_is_taken_than_is_allowed(llama: Path, calibration: Path, tmp_path: Path) -> None:
    free = _quantize("cuda", llama, calibration, tmp_path / "free")
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    # What the tests before this one left behind (workspaces of the matrix products, one for every
    # stream) counts against the limit.
    limit = 0.1 + torch.cuda.memory_reserved() / 2**30
    bounded = _quantize("cuda", llama, calibration, tmp_path / "bounded", gpu_gib=limit)
    assert torch.cuda.max_memory_reserved() <= limit * 2**30
    assert bounded.weight_digest == free.weight_digest
