"""Tasks with generated text, from items to rows of the item table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fairgate.benchmarks import SMOKE
from fairgate.contracts.item_table import Ending
from fairgate.contracts.records import SCHEMA
from fairgate.support.digests import sha256_json
from fairgate.support.errors import FairgateError
from stages.evaluate.generated.answers import ending_of, final_answer, starts_in_reasoning
from stages.evaluate.generated.classifiers import STAND_IN, Classifier, classifier
from stages.evaluate.generated.coherence import Judge
from stages.evaluate.generated.generate import Completion, Prompt, batches_of, end_tokens, generate, prompts_of
from stages.evaluate.model import Model
from stages.evaluate.progress import ProgressLine
from stages.evaluate.session import Session
from stages.evaluate.settings import Evaluate
from stages.evaluate.subset import draw
from stages.evaluate.task import Generation, Task

SMOKE_ITEMS = 20


def evaluate_generated(
    recipe: str, task: Task, session: Session, settings: Evaluate, *, smoke: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of the item table and the environment's record for one task.

    Rows of completions that another shard writes are left out. A smoke run takes at most
    SMOKE_ITEMS items and the stand-in classifier; it is stored under a separate name, so it cannot
    be mistaken for a result.

    Raises:
        FairgateError: too many prompts fill the context, logits are not numbers, a chat template or
            a classifier is missing, or the stand-in classifier is named outside a smoke run.
    """
    generation, model = task.generation, session.model
    assert generation is not None
    measures = _measures(generation, model, settings, smoke=smoke)
    items = draw(task.items, SMOKE_ITEMS if smoke else settings.tasks.get(task.name), seed=settings.seed, task=task.name)
    items = items[:SMOKE_ITEMS] if smoke else items
    budget = settings.generation.max_new_tokens or generation.budget
    prompts = prompts_of(model, items, chat=generation.chat, budget=budget, task=task.name)
    completions = _completions(session, task, prompts, settings.generation.batch)
    version = ", ".join([task.version, *measures.names])
    fixed = {"schema": SCHEMA, "model": recipe, "benchmark": task.name + SMOKE if smoke else task.name, "task_version": version}
    answered = [(prompts[i], completions[i]) for i in sorted(completions)]
    rows = [fixed | row for row in _rows(model, answered, settings, measures, chat=generation.chat)]
    record = {
        "version": version,
        "data": task.data,
        "items": len(prompts),
        "available": len(task.items),
        "upstream": task.upstream or len(task.items),
        "window": None,
        "smoke": smoke,
        "chat_template": generation.chat,
        "max_new_tokens": budget,
        "classifier": measures.classifier.name if measures.classifier else None,
        "judge": measures.judge.name if measures.judge else None,  # without a judge there is no rate of useful answers
        "endings": {ending.value: sum(row["status"] == ending for row in rows) for ending in Ending},
    }
    return rows, record | ({"beyond_context": too_long} if (too_long := len(items) - len(prompts)) else {})


@dataclass(frozen=True)
class _Measures:
    """What continuations are scored and labeled by. None means they are not."""

    classifier: Classifier | None
    judge: Judge | None

    @property
    def names(self) -> list[str]:
        return [measure.name for measure in (self.classifier, self.judge) if measure]


def _measures(generation: Generation, model: Model, settings: Evaluate, *, smoke: bool) -> _Measures:
    toxicity = STAND_IN if smoke else settings.toxicity
    if generation.score == "toxicity" and toxicity == STAND_IN and not smoke:
        raise FairgateError(
            f"{STAND_IN} stands in for a classifier, it measures nothing",
            where="evaluate.toxicity",
            remedy="name a classifier, or run with `--smoke`",
        )
    scorer = classifier(generation.score, toxicity, model.device) if generation.score else None
    judged = generation.score == "toxicity" and not smoke
    return _Measures(scorer, Judge(settings.judge, settings) if settings.judge and judged else None)


def _completions(session: Session, task: Task, prompts: list[Prompt], size: int) -> dict[int, Completion]:
    """What the model wrote, by the prompt's index; finished batches outlive a kill."""
    batches = batches_of(prompts, size, session.model.packing.thresholds)
    made_from = {
        "prompts and batches": sha256_json([[(prompts[i].ids, prompts[i].budget) for i in batch] for batch in batches]),
        "end tokens": end_tokens(session.model, session.folder),
    }
    progress = ProgressLine(task.name, len(prompts), len(prompts))
    with session.journal(task, lambda: made_from) as journal:
        progress.update(sum(map(len, journal.values.values())))
        for number, batch in enumerate(batches):
            if number not in journal.values and session.workspace.shard.owns(number):
                completions = generate(session.model, session.folder, [prompts[i] for i in batch])
                journal.add(number, [(completion.text, completion.finished) for completion in completions])
                progress.update(len(batch))
        progress.finish()
        return {
            i: Completion(*value) for number, values in journal.values.items() for i, value in zip(batches[number], values, strict=True)
        }


def _rows(
    model: Model, answered: list[tuple[Prompt, Completion]], settings: Evaluate, measures: _Measures, *, chat: bool
) -> list[dict[str, Any]]:
    tags = settings.generation
    rows: list[dict[str, Any]] = []
    said: list[tuple[dict[str, Any], Prompt, str]] = []  # rows whose completion has words outside the reasoning
    for prompt, completion in answered:
        reasons = starts_in_reasoning(model, prompt.text, chat=chat, tags=tags)
        words = final_answer(completion.text, reasons=reasons, tags=tags)
        row = _row(prompt, completion, words)
        rows.append(row)
        if words and words.strip():
            said.append((row, prompt, words))
    if measures.classifier is not None:
        for (row, *_), score in zip(said, measures.classifier.score([words for *_, words in said]), strict=True):
            row["score"] = score
    if measures.judge is not None:
        labels = measures.judge.label([(prompt.item.prompts[0][1], words) for _, prompt, words in said])
        for row in rows:
            row["answer"] = -1  # an empty completion has no label
        for (row, *_), label in zip(said, labels, strict=True):
            row["answer"] = label
    return rows


def _row(prompt: Prompt, completion: Completion, words: str | None) -> dict[str, Any]:
    ending, answer = ending_of(completion, words, prompt.item.answers)
    item = prompt.item
    return {
        "item_id": item.id,
        "cluster": item.cluster,
        "group": item.group,
        "subgroup": item.subgroup,
        "prompt_hash": sha256_json([prompt.text, prompt.budget]),
        "option_loglik": [],
        "n_tokens": [],
        "text": completion.text,
        "answer": answer,
        "gold": item.gold,
        "covariate": item.covariate,
        "status": ending,
        "score": None,
    }
