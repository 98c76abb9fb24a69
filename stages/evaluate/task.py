"""A task with its items, as the stage scores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fairgate.contracts.records import Role

Form = Literal["options", "bare", "next_token", "greedy", "generated"]


@dataclass(frozen=True)
class Item:
    """One item of a task.

    prompts: (context, option) texts in the task's order.
    chars: characters of each option, without the delimiter before it.
    answers: of generated text, what may stand in the box, in option order.
    form: how the texts become tokens (see `Encoder`).
        options     each option after its context
        bare        sentences as the tokenizer encodes them; their first token is never scored
        next_token  spellings of a word, those that are one token, after the context as it is
        greedy      one right continuation, and the likeliest token at each of its places
        generated   the user's words and the beginning of the assistant's
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
    """How a task has text generated.

    chat: whether the prompt goes through the model's chat template.
    budget: new tokens at most.
    score: what a continuation is scored by. None means that an answer is read instead.
    """

    chat: bool
    budget: int
    score: Literal["toxicity", "sentiment"] | None


@dataclass(frozen=True)
class Task:
    """One task with all its items.

    window: tokens of a window, if a whole text is scored in windows. None means items with options.
    upstream: items of the complete benchmark, if the task's data are only a part of it.
    generation: how text is generated. None means that log-likelihoods are scored.
    """

    name: str
    version: str
    data: str
    role: Role
    items: tuple[Item, ...]
    window: int | None
    upstream: int | None
    generation: Generation | None = None
