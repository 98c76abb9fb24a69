"""Numbers do not depend on what else is scored: any family, any batch, any order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.evaluate.generated.generate import batches_of, generate, prompts_of
from stages.evaluate.model import Model, load
from stages.evaluate.score import score
from stages.evaluate.task import Item
from stages.evaluate.tokens import Encoded, Encoder, Request
from tests.tiny import FAMILIES, SENTENCES, make_tiny

ROPE = {"rope_theta": 10000.0, "short_factor": [1.0] * 8, "long_factor": [8.0] * 8}
LONG = {"rope_type": "longrope", "original_max_position_embeddings": 24, "factor": 10.7, **ROPE}
NEAR = {"rope_type": "default", "rope_theta": 10000.0}
# Families whose positions are scaled by the length of a text.
SCALED: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope": ("llama", {"rope_parameters": LONG}),
    "longrope phi3": ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 24}),
    "longrope with a window": ("mistral", {"rope_parameters": LONG, "sliding_window": 40}),
    "longrope in some layers": ("gemma3", {"rope_parameters": {"sliding_attention": NEAR, "full_attention": LONG}}),
    "dynamic": ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}}),
}
CASES = {family: (family, {}) for family in FAMILIES} | SCALED
# Rounding of float32, which sums in another order. Factors of another length move scores by 0.1 and
# more.
TOLERANCE = 1e-4


def made(case: str, folder: Path) -> Model:
    family, changes = CASES[case]
    return load(make_tiny(family, folder, **changes), dtype="float32", device="cpu")


def items(model: Model, generator: random.Random) -> list[Encoded]:
    """Questions, sentences and nested texts of 3 to 60 tokens."""
    found = []
    for number in range(14):
        words = generator.choice(SENTENCES).split()
        context = " ".join((words * 3)[: generator.randint(0, 24)])
        options = [" " + " ".join(generator.choices(words, k=generator.randint(1, 9))) for _ in range(3)]
        options.append(options[0] + options[1])
        prompts = tuple((context, option if context else option[1:]) for option in options)
        found.append(Item(str(number), str(number), None, None, None, prompts, (1,) * 4))
    return Encoder(model.tokenizer, model.context).encode(found, "made_up")


def alone(model: Model, request: Request) -> float:
    """One plain forward pass, full logits."""
    ids = torch.tensor([(request.context + request.option)[:-1]])
    with torch.inference_mode():
        logprobs = model.network(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return sum(float(logprobs[len(request.context) - 1 + place, token]) for place, token in enumerate(request.option))


@pytest.mark.parametrize("case", CASES)
def test_a_score_is_that_of_the_text_alone_in_any_batch_and_order(case: str, tmp_path: Path) -> None:
    model, generator = made(case, tmp_path), random.Random(case)
    encoded = items(model, generator)
    lengths = [len(r.context + r.option) - 1 for e in encoded for r in e.requests]
    assert min(lengths) < 20 < 30 < max(lengths)
    wanted = {e.item.id: [alone(model, request) for request in e.requests] for e in encoded}
    for batch_tokens in (1, generator.randint(60, 300), 4096):
        generator.shuffle(encoded)
        part = encoded[: generator.randint(10, 14)]
        for e, found in zip(part, score(model, part, batch_tokens=batch_tokens), strict=True):
            assert found == pytest.approx(wanted[e.item.id], abs=TOLERANCE), batch_tokens


@pytest.mark.parametrize("case", SCALED)
def test_a_generated_text_is_that_of_the_prompt_alone_in_any_batch(case: str, tmp_path: Path) -> None:
    model = made(case, tmp_path)
    asked = [" ".join((" ".join(SENTENCES)).split()[:words]) for words in (2, 9, 9, 10, 11, 12, 20)]
    prompts = prompts_of(model, [Item(text, text, None, None, None, ((text, ""),), (), form="generated") for text in asked],
                         chat=False, budget=12, task="x")  # fmt: skip
    lengths = [len(prompt.ids) for prompt in prompts]
    assert min(lengths) + 12 <= 24 < max(lengths)
    written = {}
    batches = batches_of(prompts, 8, model.packing.thresholds)
    for batch in batches:
        written |= zip(batch, generate(model, tmp_path, [prompts[i] for i in batch]), strict=True)
    assert [written[i] for i in range(len(prompts))] == [generate(model, tmp_path, [prompt])[0] for prompt in prompts]
    assert any(len(batch) > 1 for batch in batches)
