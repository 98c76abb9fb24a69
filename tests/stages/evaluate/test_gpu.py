"""Scoring on a GPU: run with `pytest -m gpu` where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stages.evaluate.model import Model, load
from stages.evaluate.score import score
from stages.evaluate.task import Item
from stages.evaluate.tokens import Encoded, Encoder

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def _encoded(model: Model) -> list[Encoded]:
    """Options that share their context, and sentences that share too little to be one row."""
    question = "Question: how do you open a window?\nAnswer:"
    texts = [tuple((question, option) for option in (" turn the handle", " no", " turn bread and push"))]
    texts += [(("", f"{letter}: the old map was sold"),) for letter in "abcdefghijkl"]
    items = [Item(str(i), str(i), None, None, None, prompts, tuple(len(o) for _, o in prompts)) for i, prompts in enumerate(texts)]
    return Encoder(model.tokenizer, model.context).encode(items, "made_up")


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-4), ("bfloat16", 0.2), ("auto", 0.2)])
def test_gpu_agrees_with_the_cpu(dtype: str, apart: float, work: Path) -> None:
    exact = load(work / "llama", dtype="float32", device="cpu")
    model = load(work / "llama", dtype=dtype, device="auto")
    assert model.device.type == "cuda"
    assert model.dtype == ("bfloat16" if dtype == "auto" else dtype)
    wanted = score(exact, _encoded(exact), batch_tokens=512)
    for found, by_cpu in zip(score(model, _encoded(model), batch_tokens=512), wanted, strict=True):
        assert found == pytest.approx(by_cpu, abs=apart)


def test_batches_that_do_not_fit_are_cut(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(work / "llama", dtype="float32", device="cuda")
    whole = score(model, _encoded(model), batch_tokens=100_000)
    hidden, refused = Model.hidden, []

    def small(self: Model, ids: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        if len(ids) > 4:
            refused.append(len(ids))
            torch.empty(2**50, dtype=torch.uint8, device=ids.device)  # more than any GPU has
        return hidden(self, ids, *others)

    monkeypatch.setattr(Model, "hidden", small)
    for found, wanted in zip(score(model, _encoded(model), batch_tokens=100_000), whole, strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)
    assert len(refused) > 1
