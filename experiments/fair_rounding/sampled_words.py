"""Who comes to mind: texts sampled behind `The <occupation> was a`, and whether their first
gendered word is female or male.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fairgate.support.tokens import encode, pad_token
from stages.evaluate.model import load

_PAIRS = (
    ("she", "he"), ("her", "him"), ("hers", "his"), ("herself", "himself"), ("woman", "man"), ("women", "men"), ("girl", "boy"),
    ("girls", "boys"), ("lady", "gentleman"), ("ladies", "gentlemen"), ("female", "male"), ("females", "males"), ("mother", "father"),
    ("wife", "husband"), ("daughter", "son"), ("sister", "brother"),
)  # fmt: skip
FEMALE, MALE = (frozenset(words) for words in zip(*_PAIRS, strict=True))
TOKENS = 24

Counts = dict[str, list[int]]  # prompt -> texts that are female, male, neither


def first_gendered(text: str) -> int:
    """0: female, 1: male, 2: no gendered word."""
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in FEMALE or word in MALE:
            return 0 if word in FEMALE else 1
    return 2


@torch.no_grad()
def sampled(folder: Path, prompts: Sequence[str], draws: int, seed: int, device: str) -> Counts:
    """Texts of at most TOKENS tokens, `draws` a prompt, from the model's own probabilities."""
    model = load(folder, dtype="float32", device=device)
    counts: Counts = {}
    by_length: dict[int, list[tuple[str, list[int]]]] = {}
    for prompt, tokens in zip(prompts, encode(model.tokenizer, prompts), strict=True):
        by_length.setdefault(len(tokens), []).append((prompt, tokens))
    torch.manual_seed(seed)
    for length, alike in sorted(by_length.items()):
        ids = torch.tensor([ids for _, ids in alike], device=model.device).repeat_interleave(draws, 0)
        out = model.network.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=TOKENS, pad_token_id=pad_token(model.tokenizer, model.network.get_input_embeddings().num_embeddings),
        )  # fmt: skip
        texts = model.tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
        for number, (prompt, _) in enumerate(alike):
            kinds = [first_gendered(text) for text in texts[number * draws : (number + 1) * draws]]
            counts[prompt] = [kinds.count(kind) for kind in range(3)]
    return counts


def summary(counts: Counts, draws: int = 5000) -> dict[str, tuple[float, float, float]]:
    """Value and 95 % interval, prompts resampled: female share of the gendered texts, its mean
    distance from 1/2 over the prompts, and the share of texts with a gendered word at all."""
    table = np.array([counts[prompt] for prompt in sorted(counts)], dtype=float)
    picks = np.random.default_rng(0).integers(0, len(table), (draws, len(table)))
    gendered = table[:, :2].sum(1)
    share = np.divide(table[:, 0], gendered, out=np.full(len(table), np.nan), where=gendered > 0)

    def interval(of: np.ndarray) -> tuple[float, float]:
        low, high = np.nanpercentile(of, [2.5, 97.5])
        return float(low), float(high)

    def pooled(rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows[..., 0].sum(-1) / rows[..., :2].sum((-1, -2)))

    off = np.abs(share - 0.5)
    said = gendered / table.sum(1)
    return {
        "female share": (float(pooled(table)), *interval(pooled(table[picks]))),
        "distance from 1/2 by occupation": (float(np.nanmean(off)), *interval(np.nanmean(off[picks], axis=1))),
        "gendered at all": (float(said.mean()), *interval(said[picks].mean(1))),
    }
