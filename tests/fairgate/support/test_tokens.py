from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import processors

from fairgate.support.errors import FairgateError
from fairgate.support.tokens import bare_ids, encode, own_tokens, pad_token, start_prefix, start_token
from tests.tiny import make_tokenizer


@dataclass
class Tokenizer:
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    adds: list[int] = field(default_factory=list)
    appends: list[int] = field(default_factory=list)

    def __call__(self, text: list[str], *, add_special_tokens: bool, **_: bool) -> Any:
        front, end = (self.adds, self.appends) if add_special_tokens else ([], [])
        return SimpleNamespace(input_ids=[[*front, *map(ord, t), *end] for t in text])


@pytest.mark.parametrize(
    ("tokenizer", "start", "prefix", "pad"),
    [
        (Tokenizer(1, 2, 3), 1, [1], 3),
        (Tokenizer(None, 2), 2, [2], 2),
        (Tokenizer(1, 2, adds=[1]), 1, [], 2),
        (Tokenizer(1, 2, adds=[1], appends=[2]), 1, [], 2),
        (Tokenizer(None, 2, appends=[2]), 2, [2], 2),
        (Tokenizer(0, 2, 0), 0, [0], 0),
        (Tokenizer(), None, [], 0),
        (Tokenizer(1, 2, 384), 1, [1], 2),
        (Tokenizer(1, 385, 384), 1, [1], 0),
    ],
)
def test_special_tokens_have_their_order(tokenizer: Tokenizer, start: int | None, prefix: list[int], pad: int) -> None:
    assert (start_token(tokenizer), start_prefix(tokenizer), pad_token(tokenizer, 384)) == (start, prefix, pad)


@pytest.mark.parametrize("template", ["<s> $A </s>", "$A </s>", "<s> <s> $A </s> </s>", "</s> $A <s>", "<s> $A", "$A"])
def test_what_is_appended_is_left_out_and_what_stands_in_front_is_kept(template: str) -> None:
    tokenizer = make_tokenizer()
    before = tokenizer.encode("A pilot reads."), tokenizer.encode("")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    front, end = ([{"<s>": 0, "</s>": 1}[token] for token in part.split()] for part in template.split("$A"))
    assert own_tokens(tokenizer) == (front, end)
    assert encode(tokenizer, ["A pilot reads.", ""]) == [front + before[0], front]
    assert bare_ids(tokenizer, ["A pilot reads.", ""]) == list(before)
    assert encode(tokenizer, []) == []


def test_a_tokenizer_that_changes_a_text_where_it_adds_tokens_is_refused() -> None:
    class Odd(Tokenizer):
        def __call__(self, text: list[str], *, add_special_tokens: bool, **_: bool) -> Any:
            return SimpleNamespace(input_ids=[[1, 9] if add_special_tokens else [7] for _ in text])

    with pytest.raises(FairgateError, match=r"tokenizer: the text 'a' has the tokens \[7\], but \[1, 9\] with special tokens\nRemedy"):
        own_tokens(Odd())
