"""Greedy text from a model, by the generation of transformers.

Batches hold prompts of about one length, padded on the left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from fairgate.support.devices import out_of_memory
from fairgate.support.errors import FairgateError
from fairgate.support.files import read_json
from fairgate.support.library_errors import translated
from fairgate.support.log import log
from fairgate.support.positions import regime_of
from fairgate.support.tokens import bare_ids, encode, pad_token
from stages.evaluate.model import Model
from stages.evaluate.task import Item
from stages.evaluate.tokens import MAX_TOO_LONG

_DAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"


@dataclass(frozen=True)
class Prompt:
    """What a model reads: its text and token ids, and how many new tokens it may write."""

    item: Item
    text: str
    ids: tuple[int, ...]
    budget: int


@dataclass(frozen=True)
class Completion:
    """What a model wrote, special tokens included; `finished` if it ended within the budget."""

    text: str
    finished: bool


def prompts_of(model: Model, items: Sequence[Item], *, chat: bool, budget: int, task: str) -> list[Prompt]:
    """The prompt of each item.

    The budget shrinks to what the context leaves. Prompts that fill the context are left out, and
    the log says how many.

    Args:
        chat: a user's turn and the beginning of the assistant's, through the model's chat template;
            else the item's text as it is.
    Raises:
        FairgateError: the chat template is missing or refuses the turns, or more than MAX_TOO_LONG
            of the prompts fill the context (no prompt is ever cut).
    """
    if chat and not model.tokenizer.chat_template:
        raise FairgateError(
            "the tokenizer has no chat template", where=f"task {task}", remedy="this task needs a model that follows instructions"
        )
    asked = [item.prompts[0] for item in items]
    if chat:
        texts = [rendered(model, _turns(*words), where=f"task {task}", continue_final_message=True) for words in asked]
    else:
        texts = [words for words, _ in asked]
    # A chat template writes the special tokens itself.
    tokenized = (bare_ids if chat else encode)(model.tokenizer, texts)
    prompts = [
        Prompt(item, text, tuple(ids), min(budget, model.context - len(ids)))
        for item, text, ids in zip(items, texts, tokenized, strict=True)
    ]
    kept = [prompt for prompt in prompts if prompt.budget > 0]
    if too_long := [prompt.item.id for prompt in prompts if prompt.budget < 1]:
        where = f"task {task}"
        what = f"{len(too_long)} of {len(prompts)} prompts fill the context of {model.context} tokens; first: item {too_long[0]!r}"
        if len(too_long) > MAX_TOO_LONG * len(prompts):
            remedy = f"take the task out for this model: no prompt is cut, and at most {MAX_TOO_LONG:.0%} may be left out"
            raise FairgateError(what, where=where, remedy=remedy)
        log.warning("%s: %s; left out", where, what)
    return kept


def _turns(asked: str, begun: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": begun}]


def rendered(model: Model, turns: list[dict[str, str]], *, where: str, **options: bool) -> str:
    """The turns through the model's chat template, on a fixed day.

    Some templates tell the date, and two models must read the same.

    Raises:
        FairgateError: the template refuses the turns, or is none.
    """
    roles = ", ".join(turn["role"] for turn in turns)
    remedy = "take the task out for this model, or mend the model's chat template"
    # A template is the model's own code: it may raise anything.
    with translated(f"the chat template cannot write turns of the roles {roles}", where=where, remedy=remedy):
        template = _DAY + model.tokenizer.get_chat_template()
        return str(model.tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, **options))


def batches_of(prompts: Sequence[Prompt], size: int, thresholds: Sequence[int] = ()) -> list[list[int]]:
    """Indices of the prompts in batches of one budget and about one length.

    Args:
        size: prompts of a batch.
        thresholds: lengths at which the model's factors of positions change. Prompts that may get
            there share a batch with prompts of their own length only: all change at one step.
    """

    def kind(prompt: Prompt) -> tuple[int, int]:
        length = len(prompt.ids)
        return prompt.budget, length if regime_of(length + prompt.budget, thresholds) else 0

    batches: list[list[int]] = []
    for i in sorted(range(len(prompts)), key=lambda i: (prompts[i].budget, -len(prompts[i].ids), prompts[i].ids)):
        if batches and len(batches[-1]) < size and kind(prompts[batches[-1][0]]) == kind(prompts[i]):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def generate(model: Model, folder: Path, batch: Sequence[Prompt]) -> list[Completion]:
    """Complete each prompt by the likeliest next token until the model ends or the budget is spent.

    The text does not depend on the batch beyond rounding. If memory runs out, the batch is halved.

    Args:
        folder: of the model; its `generation_config.json` names the tokens that end a text.
    Raises:
        FairgateError: logits that are not numbers, with the item's name, or too little memory for
            one prompt.
    """
    with _own_settings_aside(model.network):
        return _complete(model, list(batch), end_tokens(model, folder))


@contextmanager
def _own_settings_aside(network: Any) -> Iterator[None]:
    """Without the model's own temperature or repetition penalty, which would be mixed in."""
    own = network.generation_config
    network.generation_config = GenerationConfig()
    try:
        yield
    finally:
        network.generation_config = own


def end_tokens(model: Model, folder: Path) -> list[int]:
    """The tokens that end a text, by the model's settings and its tokenizer. There may be none."""
    path = folder / "generation_config.json"
    stated = [read_json(path).get("eos_token_id")] if path.is_file() else []
    stated += [model.network.config.eos_token_id, model.tokenizer.eos_token_id]
    return sorted({token for ids in stated for token in (ids if isinstance(ids, list) else [ids]) if token is not None})


def _complete(model: Model, batch: list[Prompt], stops: list[int]) -> list[Completion]:
    try:
        return _greedy(model, batch, stops)
    except Exception as error:
        if not out_of_memory(error):
            raise
        if len(batch) == 1:
            raise FairgateError(
                f"memory does not suffice for {len(batch[0].ids)} tokens and {batch[0].budget} new ones",
                where=f"item {batch[0].item.id!r}",
                remedy="use a larger device, a 16-bit evaluate.dtype or a smaller evaluate.generation.max_new_tokens",
            ) from None
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    half = len(batch) // 2
    return _complete(model, batch[:half], stops) + _complete(model, batch[half:], stops)


@torch.inference_mode()
def _greedy(model: Model, batch: list[Prompt], stops: list[int]) -> list[Completion]:
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=batch[0].budget,
        eos_token_id=stops or None,
        pad_token_id=pad_token(model.tokenizer, model.network.get_input_embeddings().num_embeddings),
    )
    width = max(len(prompt.ids) for prompt in batch)
    gaps = [width - len(prompt.ids) for prompt in batch]
    ids = torch.tensor([[config.pad_token_id] * gap + list(p.ids) for gap, p in zip(gaps, batch, strict=True)], device=model.device)
    mask = (torch.arange(width) >= torch.tensor(gaps)[:, None]).long().to(model.device)
    watch = _Watch(len(batch), model.device)
    out = model.network.generate(
        input_ids=ids,
        attention_mask=mask,
        generation_config=config,
        logits_processor=LogitsProcessorList([watch]),
    )
    if watch.broken.any():
        raise FairgateError(
            "logits are not numbers",
            where=f"item {batch[int(watch.broken.int().argmax())].item.id!r}",
            remedy="the weights or the dtype overflow: evaluate in float32, and look at the quantization record",
        )
    return [_cut(model.tokenizer, row, set(stops)) for row in out[:, width:].tolist()]


def _cut(tokenizer: Any, ids: list[int], stops: set[int]) -> Completion:
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    return Completion(tokenizer.decode(ids[:end], skip_special_tokens=False), end is not None)


class _Watch(LogitsProcessor):
    """Remembers rows whose logits were not numbers, without waiting for the device at each step."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.broken = torch.zeros(rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.broken |= scores.isnan().any(-1)
        return scores
