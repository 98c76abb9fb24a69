"""Learned rounding on a GPU: run with `pytest -m gpu` where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.quantize.methods.learned import distillation, training
from stages.quantize.settings import RunSettings
from tests.stages.quantize.methods.learned.test_method import _quantize

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
RUN = RunSettings(device="cuda", seed=0, batch_tokens=256, dtype="float32")
WAYS: list[dict[str, Any]] = [{}, {"method": "learned", "start": "gptq"}, {"block_steps": 2, "context": True}]


@pytest.mark.parametrize("changes", WAYS, ids=["fair", "learned-gptq", "blocks-context"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_repeats_itself_and_goes_on_after_a_stop(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], dtype: str
) -> None:
    run = RUN.model_copy(update={"dtype": dtype})
    one = _quantize(llama, data, tmp_path / "one", run, **changes)
    two = _quantize(llama, data, tmp_path / "two", run, **changes)
    assert one.weight_digest == two.weight_digest
    real, taken = training.descend, []

    def dying(*arguments: Any) -> None:
        taken.append(1)
        if len(taken) == 11:
            raise KeyboardInterrupt
        real(*arguments)

    # Eleven steps in all, those of the blocks among them: behind the state that is kept after step
    # 4, if there are six alone.
    changes = {**changes, "steps": 12}
    whole = _quantize(llama, data, tmp_path / "whole", run, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(training, "descend", dying)
        patch.setattr(distillation, "descend", dying)
        with pytest.raises(KeyboardInterrupt):
            _quantize(llama, data, tmp_path / "again", run, **changes)
    assert (tmp_path / "work" / "state.safetensors").is_file()
    again = _quantize(llama, data, tmp_path / "again", run, **changes)
    assert again.weight_digest == whole.weight_digest


def test_recorded_steps_are_the_steps_that_python_asks_for(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SHOWN", 1)
    recorded = _quantize(llama, data, tmp_path / "recorded", RUN, steps=3, rate=1e-3, clip_rate=0.0)
    asked = _quantize(llama, data, tmp_path / "asked", RUN, steps=3, rate=1e-3, clip_rate=0.0, recompute=True)
    assert recorded.training is not None
    assert asked.training is not None
    assert len(recorded.training.history) == 3
    for ours, theirs in zip(recorded.training.history, asked.training.history, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-5)
