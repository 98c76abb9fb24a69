"""The start token and the pad token of a tokenizer."""

from __future__ import annotations

from typing import Protocol


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None

    def encode(self, text: str) -> list[int]: ...


def start_token(tokenizer: Tokenizer) -> int | None:
    """The token that begins a text: BOS, else EOS. None means the tokenizer has neither."""
    return tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id


def start_prefix(tokenizer: Tokenizer) -> list[int]:
    """The start token as a list to put in front of a text's tokens.

    Empty if the tokenizer adds the token by itself, or has none.
    """
    start = start_token(tokenizer)
    probe = tokenizer.encode("a")
    return [] if start is None or (probe and probe[0] == start) else [start]


def pad_token(tokenizer: Tokenizer) -> int:
    """The token that fills up a row: the pad token, else EOS, else 0."""
    return next(token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None)
