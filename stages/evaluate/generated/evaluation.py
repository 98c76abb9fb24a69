"""Benchmarks of generated text, from items to rows of the item table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from stages.evaluate.settings import Evaluate
from stages.evaluate.subset import draw
from stages.evaluate.task import Task

if TYPE_CHECKING:
    from stages.evaluate.stage import Run

SMOKE_ITEMS = 20


def write(recipe: str, benchmark: Task, run: Run, settings: Evaluate, *, smoke: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of the item table and the record of the environment for one benchmark.

    A smoke run takes at most SMOKE_ITEMS items and the stand-in classifier, and goes by a name that is nobody's result. The rows of
    texts that another process writes are left out.

    Raises:
        FairgateError: too many prompts that fill the context, logits that are not numbers, no chat template or classifier, or the stand-in
            classifier outside a smoke run.
    """
    generation, model = benchmark.generation, run.model
    assert generation is not None
    name, toxicity = (benchmark.name + SMOKE, STAND_IN) if smoke else (benchmark.name, settings.toxicity)
    if generation.score == "toxicity" and toxicity == STAND_IN and not smoke:
        raise FairgateError(
            f"{STAND_IN} stands in for a classifier, it measures nothing",
            where="evaluate.toxicity",
            remedy="name a classifier, or run with `--smoke`",
        )
    scorer = classifier(generation.score, toxicity, model.device) if generation.score else None
    judge = Judge(settings.judge, settings) if settings.judge and generation.score == "toxicity" and not smoke else None
    wanted = settings.tasks.get(benchmark.name)
    items = draw(benchmark.items, SMOKE_ITEMS if smoke else wanted, seed=settings.seed, benchmark=benchmark.name)
    items = items[:SMOKE_ITEMS] if smoke else items
    budget = settings.generation.max_new_tokens or generation.budget
    prompts = prompts_of(model, items, chat=generation.chat, budget=budget, benchmark=benchmark.name)
    written = _written(run, benchmark, prompts, settings.generation.batch)
    version = ", ".join([benchmark.version, *(by.name for by in (scorer, judge) if by)])
    fixed = {"schema": SCHEMA, "model": recipe, "benchmark": name, "task_version": version}
    done = [prompt for i, prompt in enumerate(prompts) if i in written]
    rows = [
        fixed | row
        for row in _rows(model, done, [written[i] for i in sorted(written)], settings, chat=generation.chat, scorer=scorer, judge=judge)
    ]
    record = {
        "version": version,
        "data": benchmark.data,
        "items": len(prompts),
        "available": len(benchmark.items),
        "upstream": benchmark.upstream or len(benchmark.items),
        "window": None,
        "smoke": smoke,
        "chat_template": generation.chat,
        "max_new_tokens": budget,
        "classifier": scorer.name if scorer else None,
        "judge": judge.name if judge else None,  # without one there is no rate of useful answers
        "endings": {ending.value: sum(row["status"] == ending for row in rows) for ending in Ending},
    }
    return rows, record | ({"beyond_context": beyond} if (beyond := len(items) - len(prompts)) else {})


def _written(run: Run, benchmark: Task, prompts: list[Prompt], size: int) -> dict[int, Completion]:
    """What the model wrote behind each prompt, by its index; finished batches outlive a kill."""
    batches = batches_of(prompts, size)
    made_from = {
        "prompts and batches": sha256_json([[(prompts[i].ids, prompts[i].budget) for i in batch] for batch in batches]),
        "end tokens": end_tokens(run.model, run.folder),
    }
    progress = ProgressLine(benchmark.name, len(prompts), len(prompts))
    with run.journal(benchmark, lambda: made_from) as done:
        progress.update(sum(map(len, done.values.values())))
        for number, batch in enumerate(batches):
            if number not in done.values and run.shard.owns(number):
                found = generate(run.model, run.folder, [prompts[i] for i in batch])
                done.add(number, [(one.text, one.finished) for one in found])
                progress.update(len(batch))
        progress.finish()
        return {i: Completion(*one) for number, values in done.values.items() for i, one in zip(batches[number], values, strict=True)}


def _rows(
    model: Model,
    prompts: list[Prompt],
    written: list[Completion],
    settings: Evaluate,
    *,
    chat: bool,
    scorer: Classifier | None,
    judge: Judge | None,
) -> list[dict[str, Any]]:
    tags = settings.generation
    said = [
        final_answer(text.text, thinking=starts_in_reasoning(model, prompt.text, chat=chat, tags=tags), tags=tags)
        for prompt, text in zip(prompts, written, strict=True)
    ]
    rows: list[dict[str, Any]] = []
    for prompt, text, words in zip(prompts, written, said, strict=True):
        ending, answer = ending_of(text, words, prompt.item.answers)
        item = prompt.item
        rows.append(
            {
                "item_id": item.id,
                "cluster": item.cluster,
                "group": item.group,
                "subgroup": item.subgroup,
                "prompt_hash": sha256_json([prompt.text, prompt.budget]),
                "option_loglik": [],
                "n_tokens": [],
                "text": text.text,
                "answer": answer,
                "gold": item.gold,
                "covariate": item.covariate,
                "status": ending,
                "score": None,
            }
        )
    spoke = [(row, prompt, words) for row, prompt, words in zip(rows, prompts, said, strict=True) if words and words.strip()]
    if scorer is not None:
        for (row, *_), score in zip(spoke, scorer.score([words for *_, words in spoke]), strict=True):
            row["score"] = score
    if judge is not None:
        labels = judge.label([(prompt.item.prompts[0][1], words) for _, prompt, words in spoke])
        for row in rows:
            row["answer"] = -1  # who said nothing has no label
        for (row, *_), label in zip(spoke, labels, strict=True):
            row["answer"] = label
    return rows
