"""What a generated text says: the part after the thoughts of a reasoning model, the answer in it, and how it ended."""

from __future__ import annotations

from fairgate.benchmarks.families.boxed import read_answer
from fairgate.contracts.item_table import Ending
from stages.evaluate.generated.generate import Completion, rendered
from stages.evaluate.model import Model
from stages.evaluate.settings import GenerationSettings


def starts_in_reasoning(model: Model, prompt: str, *, chat: bool, tags: GenerationSettings) -> bool:
    """Whether the text after this prompt begins inside a thought.

    It does where the prompt leaves one open; behind a raw prompt, where the model's chat template opens one for every answer: such a
    model thinks without being told, and may leave the opening tag out.
    """
    if not chat and model.tokenizer.chat_template:
        turns = [{"role": "user", "content": "?"}]
        prompt += rendered(model, turns, add_generation_prompt=True)
    return prompt.rfind(tags.think_open) > prompt.rfind(tags.think_close)


def final_answer(text: str, *, reasons: bool, tags: GenerationSettings) -> str | None:
    """The text after the last closing tag, or all of a text without thoughts; None where a thought was never closed."""
    _, closed, said = text.rpartition(tags.think_close)
    if closed:
        return said
    return None if reasons or tags.think_open in text else text


def ending_of(written: Completion, said: str | None, answers: tuple[str, ...]) -> tuple[Ending, int | None]:
    """How a text ended, and the answer that was read (-1: none); None where the benchmark asks for none."""
    answer = (read_answer(said, answers) if said is not None else -1) if answers else None
    if said is None:
        return Ending.unclosed_thought, answer
    if not said.strip():
        return Ending.empty, answer
    if not written.finished:
        return Ending.out_of_budget, answer
    return Ending.no_answer if answer == -1 else Ending.ok, answer
