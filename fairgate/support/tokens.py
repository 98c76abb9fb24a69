"""Texts to token ids, as every stage reads them; the start token and the pad token.

A tokenizer may add tokens by itself: BOS in front, EOS at the end. What stands in front is kept:
models are trained with it. What is appended is left out: a prompt goes on after its last word, and
a model that reads its end there answers another question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fairgate.support.errors import FairgateError


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None

    def __call__(self, text: list[str], *, add_special_tokens: bool, return_attention_mask: bool, verbose: bool) -> Any: ...


def start_token(tokenizer: Tokenizer) -> int | None:
    """The token that begins a text: BOS, else EOS. None means the tokenizer has neither."""
    return tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id


def own_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What the tokenizer puts in front of a text by itself, and what it appends.

    Raises:
        FairgateError: it changes the text's own tokens where it adds some.
    """
    (whole,), (bare,) = _ids(tokenizer, ["a"], special=True), _ids(tokenizer, ["a"], special=False)
    for place in range(len(whole) - len(bare) + 1):
        if whole[place : place + len(bare)] == bare:
            return whole[:place], whole[place + len(bare) :]
    what = f"the text 'a' has the tokens {bare}, but {whole} with special tokens"
    raise FairgateError(what, where="tokenizer", remedy="take a tokenizer that adds special tokens in front or at the end alone")


def start_prefix(tokenizer: Tokenizer) -> list[int]:
    """The start token as a list to put in front of a text's tokens.

    Empty if the tokenizer adds the token by itself, or has none.
    """
    start, (front, _) = start_token(tokenizer), own_tokens(tokenizer)
    return [] if start is None or front[:1] == [start] else [start]


def bare_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of every text alone, without special tokens."""
    return _ids(tokenizer, texts, special=False)


def encode(tokenizer: Tokenizer, texts: Sequence[str], *, start: bool = False) -> list[list[int]]:
    """Token ids of every text behind what the tokenizer puts in front by itself.

    Args:
        start: put the start token in front, where the tokenizer does not.
    """
    front, _ = own_tokens(tokenizer)
    if start:
        front = start_prefix(tokenizer) + front
    return [front + ids for ids in bare_ids(tokenizer, texts)]


def pad_token(tokenizer: Tokenizer, rows: int) -> int:
    """The token that fills up a row: the pad token, else EOS, else 0.

    It is read under a mask, so any token will do that the embedding has.

    Args:
        rows: of the embedding. Fine-tuned models may name a pad token beyond it.
    """
    return next(token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None and token < rows)


def _ids(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool) -> list[list[int]]:
    # Texts may be longer than the tokenizer thinks the context is, on purpose.
    if not texts:
        return []
    encoded = tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)
    return [list(ids) for ids in encoded.input_ids]
