"""What a generated text says: the final answer after the reasoning, and how the text ended."""

from __future__ import annotations

from contextlib import suppress

from fairgate.benchmarks.families.boxed import read_answer
from fairgate.contracts.item_table import Ending
from fairgate.support.errors import FairgateError
from stages.evaluate.generated.generate import Completion, rendered
from stages.evaluate.model import Model
from stages.evaluate.settings import GenerationSettings


def starts_in_reasoning(model: Model, prompt: str, *, chat: bool, tags: GenerationSettings) -> bool:
    """Whether the completion of this prompt begins inside the reasoning.

    True if the prompt ends inside an open thinking tag. For raw prompts: true if the chat template
    always opens one. Such a model reasons without being told, and may leave the opening tag out.
    """
    if not chat and model.tokenizer.chat_template:
        turns = [{"role": "user", "content": "?"}]
        with suppress(FairgateError):  # a template that cannot write a turn opens no tag
            prompt += rendered(model, turns, where="a raw prompt", add_generation_prompt=True)
    return prompt.rfind(tags.think_open) > prompt.rfind(tags.think_close)


def final_answer(text: str, *, reasons: bool, tags: GenerationSettings) -> str | None:
    """The text after the reasoning, or all of a text without one.

    None means that the reasoning was never closed.
    """
    _, closed, answer = text.rpartition(tags.think_close)
    if closed:
        return answer
    return None if reasons or tags.think_open in text else text


def ending_of(completion: Completion, words: str | None, answers: tuple[str, ...]) -> tuple[Ending, int | None]:
    """How a completion ended, and the index of the answer that was read from its final words.

    -1 means that no answer could be read, None that the task asks for none.
    """
    answer = (read_answer(words, answers) if words is not None else -1) if answers else None
    if words is None:
        return Ending.unclosed_thought, answer
    if not words.strip():
        return Ending.empty, answer
    if not completion.finished:
        return Ending.out_of_budget, answer
    return Ending.no_answer if answer == -1 else Ending.ok, answer
