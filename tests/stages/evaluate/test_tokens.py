from __future__ import annotations

import random
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from fairgate.contracts.records import Role
from fairgate.support.errors import FairgateError
from stages.evaluate.task import Form, Item, Task
from stages.evaluate.tokens import Encoder, Request
from tests.tiny import make_tokenizer

WORDS = [
    "the",
    "old",
    "map",
    "was",
    "here",
    "by",
    "a",
    "pilot",
    "who",
    "sold",
    "bread",
    "in",
    "the",
    "harbour",
    "and",
    "no",
    "one",
    "read",
    "it",
]

ALPHABET = [*pre_tokenizers.ByteLevel.alphabet(), "\n"]


def made(*, pre: pre_tokenizers.PreTokenizer | None, end: bool = False) -> PreTrainedTokenizerFast:
    """A BPE tokenizer; without `pre` its tokens run over words."""
    inner = Tokenizer(models.BPE())
    if pre:
        inner.pre_tokenizer = pre
    text = [" ".join(random.Random(n).choices(WORDS, k=12)) for n in range(200)]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=ALPHABET)
    inner.train_from_iterator(text, trainer)
    single = "<s> $A </s>" if end else "<s> $A"
    inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


TOKENIZERS = {
    "tiny": make_tokenizer(640),
    "bytes": made(pre=pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "metaspace": made(pre=pre_tokenizers.Metaspace()),
    "over words": made(pre=None),
    "with an end": made(pre=None, end=True),
    "words with an end": made(pre=pre_tokenizers.ByteLevel(add_prefix_space=False), end=True),
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]


def item(*prompts: tuple[str, str], form: Form = "options") -> Item:
    return Item("x", "x", None, None, None, prompts, tuple(len(option) for _, option in prompts), form=form)


def encode(tokenizer: PreTrainedTokenizerFast, *prompts: tuple[str, str], form: Form = "options") -> tuple[Request, ...]:
    return Encoder(tokenizer, 256).encode([item(*prompts, form=form)], "made_up")[0].requests


def bare(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def test_options_have_the_tokens_that_the_whole_text_has(tokenizer: PreTrainedTokenizerFast) -> None:
    generator = random.Random(0)
    items = []
    for _ in range(40):
        context = " ".join(generator.choices(WORDS, k=generator.randint(1, 6))) + generator.choice(["", ".", "\nAnswer:", " ", "  ", "\n"])
        items.append(item(*((context, f"{generator.choice(['', ' ', '  '])}{' '.join(generator.choices(WORDS, k=6))}") for _ in range(4))))
    encoder = Encoder(tokenizer, 256)
    for encoded in encoder.encode(items, "made_up"):
        boundary = len(encoded.item.prompts[0][0].rstrip())
        starts, edges = set(), []
        for (context, option), request in zip(encoded.item.prompts, encoded.requests, strict=True):
            whole = tokenizer(context + option, add_special_tokens=False, return_offsets_mapping=True)
            count = len(whole.input_ids) - len(request.option)
            assert request.option == tuple(whole.input_ids[count:])
            assert request.context == (encoder.front + tuple(whole.input_ids[:count]) or (encoder.start,))
            ends = [0, *(end for _, end in whole.offset_mapping)]
            assert ends[count] <= boundary  # no token of the context covers a character of the option
            starts.add(ends[count])
            edges.append(set(ends))
        # All options are scored from one character on, as late as their tokens allow.
        assert starts == {max(place for place in range(boundary + 1) if all(place in each for each in edges))}


def test_nothing_that_the_tokenizer_appends_is_read_or_scored() -> None:
    plain, ends = (made(pre=pre_tokenizers.ByteLevel(add_prefix_space=False), end=end) for end in (False, True))
    assert ends.encode("the map")[-1] == ends.eos_token_id
    forms: list[tuple[Form, list[tuple[str, str]]]] = [
        ("options", [("the old map.", " no"), ("the old map.", " read it")]),
        ("options", [("", "the old map was here"), ("", "the pilot was here")]),
        ("bare", [("", "the old map was here"), ("", "the pilot was here")]),
        ("next_token", [("the old map was ", "a"), ("the old map was ", "no")]),
        ("greedy", [("the old map was", " here"), ("the old map was", " here")]),
    ]
    for form, prompts in forms:
        assert encode(ends, *prompts, form=form) == encode(plain, *prompts, form=form), form
    no, _ = encode(ends, *forms[0][1])
    assert (no.context, no.option) == ((0, *bare(ends, "the old map.")), bare(ends, " no"))
    text = Task("t", "1", "t", Role.gate, (item(("", "the old map was here by a pilot")),), window=4, upstream=None)
    windows = Encoder(ends, 256).windows(text)
    assert [window.requests for window in windows] == [window.requests for window in Encoder(plain, 256).windows(text)]
    scored = [token for window in windows for token in window.requests[0].option]
    assert scored == [0, *bare(ends, "the old map was here by a pilot")]  # as lm-eval: the tokenizer's own BOS is predicted too


def spanning() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens run from a prompt into some of its answers."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = ["Answer: no", "Answer: yes", ": no", ": no", ": yes", "r: no", "is it?"] * 50
    trainer = trainers.BpeTrainer(vocab_size=384, special_tokens=["<s>", "</s>"], initial_alphabet=ALPHABET)
    inner.train_from_iterator(text, trainer)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def test_a_token_over_the_boundary_belongs_to_the_option() -> None:
    tokenizer = spanning()
    assert tokenizer.tokenize("is it? Answer: no")[-1] == "Answer:Ġno"
    no, maybe = encode(tokenizer, ("is it? Answer:", " no"), ("is it? Answer:", " maybe"))
    assert tokenizer.decode(no.option) == "Answer: no"
    # Its piece of the prompt is scored for the other answer too: both are likelihoods of a text
    # behind the same words.
    assert tokenizer.decode(maybe.option) == "Answer: maybe"
    assert tokenizer.decode(no.context) == tokenizer.decode(maybe.context) == "is it? "
    # Nothing is left of this prompt.
    assert [r.context for r in encode(tokenizer, ("Answer:", " no"), ("Answer:", " maybe"))] == [(tokenizer.bos_token_id,)] * 2
    with pytest.raises(FairgateError, match="option 1 of item 'x' has no token"):
        encode(tokenizer, ("is it? Answer:", " no"), ("is it? Answer:", ""))


def test_a_token_over_several_words_is_seen_in_every_option() -> None:
    # The first option can be tokenized from the last word of the prompt on, the second cannot.
    vocabulary = ["<s>", *"a bcx", "bc", " bc", "a bc", " b"]
    merges = [("b", "c"), (" ", "bc"), ("a", " bc"), (" ", "b")]
    inner = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(vocabulary)}, merges=merges))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    prompts = (("x a b", "x"), ("x a b", "c"))
    for (context, option), request in zip(prompts, encode(tokenizer, *prompts), strict=True):
        assert request.context + request.option == bare(tokenizer, context + option)


def test_a_prompt_of_white_space_is_a_start_token() -> None:
    assert encode(make_tokenizer(), (" ", "no")) == (Request((0,), bare(make_tokenizer(), " no")),)


def test_a_tokenizer_without_offsets_is_refused_where_a_token_runs_over_the_boundary() -> None:
    class Slow:
        is_fast = False

        def __init__(self, inner: PreTrainedTokenizerFast) -> None:
            self.inner = inner

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.inner(*args, **kwargs)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    slow: Any = Slow(spanning())
    assert encode(slow, ("is it? Answer:", "x")) == encode(spanning(), ("is it? Answer:", "x"))
    with pytest.raises(FairgateError, match=r"a token runs over the end of the prompt 'is it\? Answer:'\nRemedy: .*tokenizer.json"):
        encode(slow, ("is it? Answer:", " no"))
