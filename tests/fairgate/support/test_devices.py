from __future__ import annotations

import pytest
import torch

from fairgate.support.devices import out_of_memory, pick_batch_tokens, pick_device, pick_dtype
from fairgate.support.errors import FairgateError


def test_allocation_failures_are_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert out_of_memory(caught.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("can't allocate memory"))


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert pick_device("auto", parameter="x") == torch.device(device)
    assert pick_device("cpu", parameter="x") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_refused_by_the_parameter_that_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:1"):
        with pytest.raises(FairgateError, match=rf"evaluate.device: device '{name}'"):
            pick_device(name, parameter="evaluate.device")


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_where_the_device_computes_in_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert pick_dtype("auto", gpu, native=native) == torch.bfloat16
    assert pick_dtype("auto", cpu, native=native) == (torch.bfloat16 if native else torch.float32)
    assert pick_dtype("float16", cpu, native=native) == torch.float16


def test_a_batch_is_as_large_as_asked_for_or_as_the_device_likes() -> None:
    assert pick_batch_tokens(77, torch.device("cuda")) == 77
    assert pick_batch_tokens("auto", torch.device("cuda")) > pick_batch_tokens("auto", torch.device("cpu"))
