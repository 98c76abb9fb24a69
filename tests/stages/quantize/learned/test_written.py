"""Rows that the unquantized model writes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from stages.quantize.learned import written as module
from stages.quantize.learned.written import at_once, written


def test_rows_go_on_from_their_openings_and_are_drawn_from_what_the_model_predicts(llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0)))
    openings = torch.tensor([[3, 4]]).repeat(4000, 1)
    rows = torch.tensor(written(model, openings, 3, seed=1))
    assert rows.shape == (4000, 3)
    assert torch.equal(rows[:, :2], openings)
    with torch.no_grad():
        p = model(openings[:1]).logits[0, -1].softmax(-1)
    share = torch.bincount(rows[:, 2], minlength=len(p)) / 4000
    likely = p.topk(5).indices
    assert torch.allclose(share[likely], p[likely], atol=4 * (0.25 / 4000) ** 0.5)


def test_the_cache_changes_nothing_and_neither_do_rows_beside_it(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    openings = torch.tensor([[3, 4], [5, 6], [7, 8]])
    rows = written(model, openings, 9, seed=1)
    assert rows == written(model, openings, 9, seed=1) != written(model, openings, 9, seed=2)
    monkeypatch.setattr(torch, "multinomial", lambda p, count, generator: p.argmax(-1, keepdim=True))
    greedy = torch.tensor(written(model, openings, 9, seed=1))
    with torch.no_grad():
        assert torch.equal(model(greedy).logits[:, 1:-1].argmax(-1), greedy[:, 2:])
    monkeypatch.setattr(module, "at_once", lambda *_: 2)
    assert torch.equal(torch.tensor(written(model, openings, 9, seed=1)), greedy)


def test_as_many_rows_at_once_as_there_is_memory_for() -> None:
    shared = SimpleNamespace(num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, hidden_size=576)
    assert at_once(shared, 256, 2, torch.device("cuda")) == 8 * 2**30 // (2 * 30 * 3 * 64 * 2 * 256)
    own = SimpleNamespace(num_hidden_layers=32, num_attention_heads=32, hidden_size=4096, head_dim=128)
    assert at_once(own, 256, 2, torch.device("cuda")) == 64
    assert at_once(own, 10**6, 2, torch.device("cpu")) == 1
