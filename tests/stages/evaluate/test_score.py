from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fairgate.support.errors import FairgateError
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.model import Model, load
from stages.evaluate.rows import rows_of
from stages.evaluate.score import score
from stages.evaluate.task import Item
from stages.evaluate.tokens import Encoded, Encoder, Request
from tests.tiny import make_tiny


@pytest.fixture(scope="module")
def model(work: Path) -> Model:
    return load(work / "llama", dtype="float32", device="cpu")


def encoded(model: Model, *prompts: tuple[str, str], name: str = "x") -> list[Encoded]:
    item = Item(name, name, None, None, None, prompts, tuple(len(o) for _, o in prompts))
    return Encoder(model.tokenizer, model.context).encode([item], "made_up")


def by_hand(model: Model, request: Request) -> float:
    """One plain forward pass, full logits."""
    ids = torch.tensor([request.context + request.option])
    with torch.inference_mode():
        logprobs = model.network(input_ids=ids).logits[0].log_softmax(-1)
    return sum(float(logprobs[len(request.context) - 1 + j, token]) for j, token in enumerate(request.option))


def test_options_that_share_a_beginning_are_scored_as_if_alone(model: Model) -> None:
    context = "Question: how do you open a window?\nAnswer:"
    options = [" turn the handle", " turn the handle and push", " no", " yes", " turn bread"]
    items = encoded(model, *((context, option) for option in options))
    assert score(model, items, batch_tokens=512)[0] == pytest.approx([by_hand(model, r) for r in items[0].requests], abs=1e-4)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3", "falcon_sequential"])
def test_options_are_scored_as_if_alone_where_a_window_or_alibi_decides_too(family: str, tmp_path: Path) -> None:
    model = load(make_tiny(family, tmp_path), dtype="float32", device="cpu")
    for context in ("A", "Question: how do you open a window?\nAnswer:"):  # within the window of 8 tokens, and beyond it
        items = encoded(model, *((context, option) for option in (" turn", " no", " turn the", " yes")))
        assert score(model, items, batch_tokens=512)[0] == pytest.approx([by_hand(model, r) for r in items[0].requests], abs=1e-4)


def test_logits_are_softcapped_as_the_model_does(tmp_path: Path) -> None:
    model = load(make_tiny("gemma2", tmp_path, final_logit_softcapping=0.5), dtype="float32", device="cpu")
    ids = torch.arange(8)[None]
    assert torch.allclose(model.logits(model.hidden(ids)), model.network(input_ids=ids).logits, atol=1e-6)


@pytest.mark.parametrize(
    "keys", [{"final_logit_softcapping": 0.5, "alibi": True}, {"final_logit_softcapping": "30", "sliding_window": "8"}]
)
def test_keys_of_other_architectures_change_nothing(keys: dict[str, Any], tmp_path: Path) -> None:
    plain = load(make_tiny("llama", tmp_path / "plain"), dtype="float32", device="cpu")
    model = load(make_tiny("llama", tmp_path / "model", **keys), dtype="float32", device="cpu")
    assert model.packing == plain.packing
    ids = torch.arange(8)[None]
    assert torch.equal(model.logits(model.hidden(ids)), plain.logits(plain.hidden(ids)))


def test_a_model_that_loads_and_cannot_be_run_is_told(tmp_path: Path) -> None:
    folder = make_tiny("opt", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dropout": -1.0}))
    with pytest.raises(FairgateError, match=r"cannot run it .*dropout probability"):
        load(folder, dtype="float32", device="cpu")


def test_a_model_without_a_context_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FairgateError, match="no max_position_embeddings for 'mpt'"):
        load(make_tiny("mpt", tmp_path), dtype="float32", device="cpu")


def test_sentences_start_behind_bos(model: Model) -> None:
    items = encoded(model, ("", "The gardener reads."), ("", "The pilot reads."))
    assert {r.context for r in items[0].requests} == {(model.tokenizer.bos_token_id,)}
    assert score(model, items, batch_tokens=512)[0] == pytest.approx([by_hand(model, r) for r in items[0].requests], abs=1e-4)


def test_options_with_different_contexts_keep_their_own(model: Model) -> None:
    requests = (Request((5, 6), (7, 8)), Request((9,), (7,)))
    items = [replace(encoded(model, ("", "a"))[0], requests=requests)]
    assert score(model, items, batch_tokens=512)[0] == pytest.approx([by_hand(model, r) for r in requests], abs=1e-4)


def test_yes_and_no_need_one_row_and_no_second_forward(model: Model) -> None:
    (item,) = encoded(model, ("The morning was dry.\nAnswer:", " no"), ("The morning was dry.\nAnswer:", " no"))
    (row,) = rows_of([item])
    assert len(row.tokens) == len(item.requests[0].context + item.requests[0].option) - 1
    assert not row.branches


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_batch_size_does_not_matter(catalogue: Catalogue, model: Model, batch_tokens: int) -> None:
    encoder = Encoder(model.tokenizer, model.context)
    items = [e for name in ("stereoset", "boolq", "openbookqa") for e in encoder.encode(list(catalogue.load(name).items), name)]
    for found, wanted in zip(score(model, items, batch_tokens=batch_tokens), score(model, items, batch_tokens=300), strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)


def test_a_likelihood_that_is_not_finite_names_the_item(model: Model) -> None:
    broken = replace(model, network=copy.deepcopy(model.network))
    with torch.no_grad():
        broken.network.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FairgateError, match=r"item 'bad one'.*option 0"):
        score(broken, encoded(model, ("", "The pilot."), name="bad one"), batch_tokens=64)


def test_a_prompt_beyond_the_context_is_refused_not_cut(model: Model) -> None:
    with pytest.raises(FairgateError, match=r"1 of 1 items exceed the context of 256 tokens; first: item 'x'"):
        encoded(model, ("The pilot reads a map. " * 100, " yes"))


def test_an_option_without_tokens_is_refused(model: Model) -> None:
    with pytest.raises(FairgateError, match="has no token"):
        encoded(model, ("The pilot reads", ""))


def test_a_space_at_the_end_of_a_context_moves_into_the_option(model: Model) -> None:
    moved, plain = encoded(model, ("The pilot ", "reads"), ("The pilot", " reads"))[0].requests
    assert moved == plain
