"""AutoRound as a control: its codes arrive exactly, the rest of the model stays the base's.

Runs where auto-round is installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from experiments.fair_rounding.autoround_peer import quantize, rows
from fairgate.support.errors import FairgateError
from stages.evaluate.model import load
from tests.tiny import SENTENCES, make_tiny, make_tokenizer

TEXTS = SENTENCES * 20
SETTINGS = {"bits": 4, "group_size": 32, "symmetric": True, "seqlen": 32, "nsamples": 16, "seed": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny("llama", tmp_path_factory.mktemp("autoround") / "base")
    # AutoRound puts float32 tensors back itself, those of other types it leaves in bfloat16.
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16).save_pretrained(folder)
    return folder


def read(folder: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Weights, and logits of the calibration rows."""
    model = load(folder, dtype="float32", device="cpu")
    with torch.inference_mode():
        logits = model.network(input_ids=torch.cat(rows(TEXTS, model.tokenizer, 32, 16))).logits
    return model.network.state_dict(), logits


def test_weights_are_learned_on_the_grid_and_the_rest_is_the_base(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("auto_round", reason="auto-round is not installed: pip install --constraint constraints.txt auto-round==0.16.1")
    for name, steps in {"learned": 20, "again": 20, "nearest": 1}.items():
        quantize(base, TEXTS, tmp_path / name, steps=steps, **SETTINGS)
    (own, logits), (learned, near), (again, _), (_, far) = map(read, (base, *(tmp_path / name for name in ("learned", "again", "nearest"))))
    assert (near - logits).norm() < 0.95 * (far - logits).norm()
    assert {name for name, weight in learned.items() if not torch.equal(weight, own[name])} == {name for name in own if "_proj" in name}
    for name, weight in learned.items():
        assert torch.equal(weight, again[name]), name
        assert "_proj" not in name or all(len(group.unique()) <= 16 for group in weight.view(-1, 32)), name


def test_texts_become_rows_behind_their_start_tokens() -> None:
    tokenizer = make_tokenizer()
    first, second = rows(["bread", "salt"] * 50, tokenizer, 24, 2)
    text = [token for word in ("bread", "salt") * 50 for token in [tokenizer.bos_token_id, *tokenizer.encode(word)]]
    assert first.shape == (1, 24) and [*first[0], *second[0]] == text[:48]
    with pytest.raises(FairgateError, match=r"2 rows of 24 were asked for[\s\S]*at most 0"):
        rows(["bread"], tokenizer, 24, 2)


def test_a_missing_package_is_named_with_its_remedy(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "auto_round", None)
    with pytest.raises(FairgateError, match=r"auto-round cannot be imported[\s\S]*pip install"):
        quantize(base, TEXTS, tmp_path / "out", steps=1, **SETTINGS)
    assert not (tmp_path / "out").exists()
