"""How a model reads text: its tokenizer, and the limits of its positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from fairgate.model_folder.architecture import reading
from fairgate.model_folder.tokenizer import load_tokenizer
from fairgate.support.positions import context_of, thresholds_of
from fairgate.support.tokens import pad_token


@dataclass(frozen=True)
class Reader:
    """A model's tokenizer and limits.

    Args:
        pad: fills up short rows, under a mask.
        context: number of positions. None means that the model names no limit.
        thresholds: lengths at which the factors of positions change.
    """

    tokenizer: Any
    pad: int
    context: int | None
    thresholds: tuple[int, ...]

    @property
    def most(self) -> int | None:
        """Tokens of the longest text that has positions, and the factors of every shorter text."""
        return min((limit for limit in (self.context, *self.thresholds) if limit is not None), default=None)

    def holds(self, ids: Sequence[int]) -> bool:
        """Whether the model has a position for every token."""
        return self.context is None or len(ids) <= self.context


def read_reader(base: Path) -> Reader:
    """The reader of the model in the folder `base`; no weight is loaded."""
    tokenizer = load_tokenizer(base)
    with reading("read it"):
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    return Reader(tokenizer, pad_token(tokenizer, config.vocab_size), context_of(config), thresholds_of(config))
