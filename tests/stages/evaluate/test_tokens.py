from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from stages.evaluate.task import Item
from stages.evaluate.tokens import Encoder
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


def made(*, pre: pre_tokenizers.PreTokenizer | None, end: bool = False) -> PreTrainedTokenizerFast:
    """A BPE tokenizer; without `pre` its tokens run over words."""
    inner = Tokenizer(models.BPE())
    if pre:
        inner.pre_tokenizer = pre
    text = [" ".join(random.Random(n).choices(WORDS, k=12)) for n in range(200)]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator(text, trainer)
    single = "<s> $A </s>" if end else "<s> $A"
    inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize(
    "tokenizer",
    [
        make_tokenizer(640),
        made(pre=pre_tokenizers.ByteLevel(add_prefix_space=False)),
        made(pre=pre_tokenizers.Metaspace()),
        made(pre=None),
        made(pre=None, end=True),
    ],
    ids=["tiny", "bytes", "metaspace", "over words", "with an end"],
)
def test_options_have_the_tokens_that_the_whole_text_has(tokenizer: PreTrainedTokenizerFast) -> None:
    generator = random.Random(0)
    items = []
    for number in range(40):
        context = " ".join(generator.choices(WORDS, k=generator.randint(1, 6))) + generator.choice(["", ".", "\nAnswer:", " ", "  ", "\n"])
        prompts = tuple((context, f"{generator.choice(['', ' ', '  '])}{' '.join(generator.choices(WORDS, k=6))}") for _ in range(4))
        items.append(Item(str(number), str(number), None, None, None, prompts, (1,) * 4))
    for encoded in Encoder(tokenizer, 256).encode(items, "made_up"):
        for (context, option), request in zip(encoded.item.prompts, encoded.requests, strict=True):
            assert request.context + request.option == tuple(tokenizer.encode(context + option))
            assert len(request.context) == len(tokenizer.encode(context.rstrip()))
