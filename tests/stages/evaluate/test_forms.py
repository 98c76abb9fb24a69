"""The forms of an item beside plain options: bare sentences, spellings of the next token, a greedy
match.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from fairgate.support.errors import FairgateError
from stages.evaluate.model import Model, load
from stages.evaluate.score import score
from stages.evaluate.task import Form, Item
from stages.evaluate.tokens import Encoded, Encoder, Request
from tests.tiny import make_tokenizer


@pytest.fixture(scope="module")
def model(work: Path) -> Model:
    return load(work / "llama", dtype="float32", device="cpu")


def encode(tokenizer: PreTrainedTokenizerFast, form: Form, *prompts: tuple[str, str]) -> Encoded:
    chars = tuple(len(option.strip()) for _, option in prompts)
    return Encoder(tokenizer, 256).encode([Item("x", "x", None, None, None, prompts, chars, form=form)], "made_up")[0]


def test_a_bare_sentence_never_scores_its_first_token() -> None:
    tokenizer = make_tokenizer()
    sentence = "A pilot reads the map."
    ids = tuple(tokenizer.encode(sentence))
    (request,) = encode(tokenizer, "bare", ("", sentence)).requests
    assert (request.context, request.option) == (ids[:1], ids[1:])
    (started,) = encode(tokenizer, "options", ("", sentence)).requests
    assert (started.context, started.option) == ((tokenizer.bos_token_id,), ids)
    with pytest.raises(FairgateError, match="of item 'x' has no token"):
        encode(tokenizer, "bare", ("", "A"))


def test_only_spellings_that_are_one_token_are_kept() -> None:
    prompts = tuple(("Answer: ", spelling) for spelling in (" yes", "yes ", " yes", "n", " no"))
    tokenizer = make_tokenizer(640)
    single = [len(tokenizer.encode(option, add_special_tokens=False)) == 1 for _, option in prompts]
    assert single == [True, False, True, True, True]
    kept = encode(tokenizer, "next_token", *prompts)
    # The second " yes" is the same token as the first: its mass counts once. The context keeps its
    # space.
    assert [request.option for request in kept.requests] == [tuple(tokenizer.encode(text)) for text in (" yes", "n", " no")]
    assert {request.context for request in kept.requests} == {tuple(tokenizer.encode("Answer: "))}
    assert kept.item.chars == (3, 1, 2)
    with pytest.raises(FairgateError, match="no spelling of an answer is a single token"):
        encode(tokenizer, "next_token", ("Answer: ", " yes"), ("Answer: ", "NO"))


def test_next_token_mass_is_that_of_the_whole_vocabulary(model: Model) -> None:
    item = encode(model.tokenizer, "next_token", ("Answer: ", "n"), ("Answer: ", "y"))
    (scores,) = score(model, [item], batch_tokens=64)
    with torch.inference_mode():
        logits = model.network(input_ids=torch.tensor([model.tokenizer.encode("Answer: ")])).logits[0, -1]
    expected = logits.log_softmax(-1)[[model.tokenizer.encode("n")[0], model.tokenizer.encode("y")[0]]]
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_greedy_match_is_told_by_equal_sums(model: Model) -> None:
    context = tuple(model.tokenizer.encode("A pilot reads the"))
    greedy = context
    with torch.inference_mode():
        for _ in range(3):
            greedy += (int(model.network(input_ids=torch.tensor([greedy])).logits[0, -1].argmax()),)
    chosen = greedy[len(context) :]
    item = encode(model.tokenizer, "greedy", *[("A pilot reads the", " salt and")] * 2)
    assert [request.greedy for request in item.requests] == [False, True]
    one, other = (replace(item, requests=tuple(Request(context, option, best) for best in (False, True)))
                  for option in (chosen, (*chosen[:1], chosen[1] + 1, chosen[2])))  # fmt: skip
    (ours, best), (wrong, better) = score(model, [one, other], batch_tokens=64)
    assert ours == best
    assert wrong < better
