"""Sampled texts and their first gendered word."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.fair_rounding import sampled_words
from experiments.fair_rounding.sampled_words import first_gendered, sampled, summary
from tests.tiny import make_tiny_llama


def test_the_first_gendered_word_decides() -> None:
    assert first_gendered(" nurse. He told her so") == 1
    assert first_gendered(" good woman; his friend") == 0
    assert first_gendered("shed, then the manner of it") == 2


def test_every_prompt_has_its_draws_and_a_seed_its_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, seen = make_tiny_llama(tmp_path / "base"), []
    monkeypatch.setattr(sampled_words, "first_gendered", lambda text: (seen.append(text), len(text) % 3)[1])
    prompts = ["The old pilot was a", "The harbour was a", "The pilot was a"]
    first = sampled(base, prompts, 5, 0, "cpu")
    assert set(first) == set(prompts)
    assert all(sum(kinds) == 5 for kinds in first.values())
    assert len(set(seen)) > 5
    assert sampled(base, prompts, 5, 0, "cpu") == first
    assert seen[:15] == seen[15:30]


def test_summary_by_hand() -> None:
    found = summary({"a": [3, 1, 0], "b": [1, 1, 2], "c": [0, 0, 4]})
    assert found["female share"][0] == pytest.approx(4 / 6)
    assert found["distance from 1/2 by occupation"][0] == pytest.approx((0.25 + 0) / 2)
    assert found["gendered at all"][0] == pytest.approx((1 + 0.5 + 0) / 3)
    value, low, high = found["gendered at all"]
    assert low < value < high
