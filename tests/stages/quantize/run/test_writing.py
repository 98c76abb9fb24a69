from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from stages.quantize.run import writing
from stages.quantize.run.writing import Unwanted, fetch, save

TENSORS = {
    "bytes": torch.arange(7, dtype=torch.uint8),
    "turned": torch.randn(3, 5).T,
    "half": torch.randn(3, dtype=torch.float16),
    "brain": torch.randn(2, 3, dtype=torch.bfloat16),
    "words": torch.arange(-2, 3, dtype=torch.int32),
    "scalar": torch.tensor(2.5),
    "none": torch.empty(0, 4),
}


def test_what_is_saved_is_what_safetensors_reads(tmp_path: Path) -> None:
    save(tmp_path / "file.safetensors", TENSORS, {"start": 3})
    found = load_file(tmp_path / "file.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype is tensor.dtype
        assert torch.equal(found[name], tensor)
    size = int.from_bytes((tmp_path / "file.safetensors").read_bytes()[:8], "little")
    header = json.loads((tmp_path / "file.safetensors").read_bytes()[8 : 8 + size])
    assert size % 8 == 0
    assert all(header[name]["data_offsets"][0] % tensor.itemsize == 0 for name, tensor in TENSORS.items())
    with safe_open(tmp_path / "file.safetensors", framework="pt") as file:
        assert file.metadata() == {"start": "3"}


def test_a_file_that_is_not_wanted_any_more_leaves_the_old_one(tmp_path: Path) -> None:
    save(tmp_path / "file.safetensors", {"a": torch.ones(2)})
    answers = iter([True, False])
    with pytest.raises(Unwanted):
        save(tmp_path / "file.safetensors", TENSORS, wanted=lambda: next(answers))
    assert load_file(tmp_path / "file.safetensors").keys() == {"a"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_is_fetched_is_what_the_gpu_holds_and_memory_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CHUNK", 1000)  # no multiple of any of the sizes
    states = [torch.randn(3, 7, 64, device="cuda", dtype=torch.bfloat16), torch.randn(5, 64, device="cuda", dtype=torch.bfloat16)]
    first = fetch(states, [])
    assert all(torch.equal(own, state.cpu()) for own, state in zip(first, states, strict=True))
    doubled = fetch([2 * state for state in states], first)
    assert [own.data_ptr() for own in doubled] == [own.data_ptr() for own in first]
    assert all(torch.equal(own, 2 * state.cpu()) for own, state in zip(doubled, states, strict=True))
    assert [own.shape for own in fetch(states[:1], first)] == [states[0].shape]
