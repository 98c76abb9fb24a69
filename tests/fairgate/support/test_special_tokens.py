from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from fairgate.support.special_tokens import pad_token, start_prefix, start_token


@dataclass
class Tokenizer:
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    adds: list[int] = field(default_factory=list)

    def encode(self, text: str) -> list[int]:
        return [*self.adds, *map(ord, text)]


@pytest.mark.parametrize(
    ("tokenizer", "start", "prefix", "pad"),
    [
        (Tokenizer(1, 2, 3), 1, [1], 3),
        (Tokenizer(None, 2), 2, [2], 2),
        (Tokenizer(1, 2, adds=[1]), 1, [], 2),
        (Tokenizer(0, 2, 0), 0, [0], 0),
        (Tokenizer(), None, [], 0),
    ],
)
def test_special_tokens_have_their_order(tokenizer: Tokenizer, start: int | None, prefix: list[int], pad: int) -> None:
    assert (start_token(tokenizer), start_prefix(tokenizer), pad_token(tokenizer)) == (start, prefix, pad)
