"""A task with its items, as the stage scores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fairgate.contracts.records import Role

Form = Literal["options", "bare", "next_token", "greedy", "generated"]


@dataclass(frozen=True)
class Item:
    """One item: (context, option) texts in the task's order; `chars` counts each option without the delimiter before it.

    form: how the texts become tokens (`Encoder`).
        options     each option behind its context
        bare        sentences without a start token that the tokenizer does not add by itself; their first token is never scored
        next_token  spellings of a word: those that are one token, behind the context as it stands
        greedy      one right continuation, and beside it the likeliest token at each of its places
        generated   the user's words and the beginning of the assistant's; `answers` is what may stand in the box, in option order
    """

    id: str
    cluster: str
    group: str | None
    subgroup: str | None
    gold: int | None
    prompts: tuple[tuple[str, str], ...]
    chars: tuple[int, ...]
    form: Form = "options"
    covariate: float | None = None
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generation:
    """How text is generated: through the chat template or raw, how many new tokens at most; `score`: what a continuation is scored by."""

    chat: bool
    budget: int
    score: Literal["toxicity", "sentiment"] | None


@dataclass(frozen=True)
class Task:
    """One task with all its items; `window` is set where a whole text is scored in windows of that many tokens.

    upstream: items of the complete benchmark, where the carrier of the data holds only a part of it.
    generation: set where text is generated instead.
    """

    name: str
    version: str
    data: str
    role: Role
    items: tuple[Item, ...]
    window: int | None
    upstream: int | None
    generation: Generation | None = None
