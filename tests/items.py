"""Hand-made item tables: a pair, a choice or a window per row, with log-likelihoods chosen by the
test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from fairgate.contracts.item_table import ITEMS
from fairgate.contracts.records import Environment, ModuleRow, Quantization, Role, Status


def row(benchmark: str, item: int | str, loglik: list[float], **columns: Any) -> dict[str, Any]:
    """One item with one token and one character an option, its own cluster and no group, unless
    said otherwise.
    """
    return {
        "schema": 1,
        "model": "base",
        "benchmark": benchmark,
        "task_version": "1",
        "item_id": f"{item:05d}" if isinstance(item, int) else item,
        "cluster": f"{item:05d}" if isinstance(item, int) else item,
        "prompt_hash": f"hash of {item}",
        "option_loglik": loglik,
        "n_tokens": [1] * len(loglik),
        "n_chars": [1] * len(loglik),
        **columns,
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ITEMS)


# One check of a policy: CrowS-Pairs, overall.
CROWS_CHECK: dict[str, Any] = {
    "name": "bias",
    "metric": "crows_pairs.pct_stereotype",
    "rule": "neutral",
    "by": "overall",
    "margin": 3.0,
    "minimum_n": 100,
    "reason": "r",
}
STEREOTYPED, ANTI, TIED = [-1.0, -2.0], [-2.0, -1.0], [-1.0, -1.0]


def crows(sides: np.ndarray, groups: list[str] | None = None, **columns: Any) -> list[dict[str, Any]]:
    """CrowS-Pairs rows; sides [n]: whether the stereotype is preferred."""
    names = groups or ["all"]
    return [row("crows_pairs", i, STEREOTYPED if side else ANTI, group=names[i % len(names)], **columns) for i, side in enumerate(sides)]


def stereoset(
    sides: np.ndarray, *, per_term: int = 5, groups: tuple[str, ...] = ("gender", "race"), unrelated: float = -9.0
) -> list[dict[str, Any]]:
    """StereoSet rows in terms of `per_term` items, whose groups take turns."""
    out = []
    for i, side in enumerate(sides):
        term = i // per_term
        loglik = [*(STEREOTYPED if side else ANTI), unrelated]
        out.append(row("stereoset", i, loglik, cluster=f"term {term:04d}", group=groups[term % len(groups)]))
    return out


def choices(benchmark: str, correct: np.ndarray) -> list[dict[str, Any]]:
    """Two options, gold 0."""
    return [row(benchmark, i, [-1.0, -2.0] if right else [-2.0, -1.0], gold=0) for i, right in enumerate(correct)]


def windows(loglik: np.ndarray, tokens: int = 100) -> list[dict[str, Any]]:
    return [row("perplexity", i, [float(value)], n_tokens=[tokens]) for i, value in enumerate(loglik)]


def flipped(sides: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Each side turned over with the given probability."""
    return sides ^ (generator.random(len(sides)) < share)


def quantization(recipe: str, *statuses: Status) -> Quantization:
    """Records of a checkpoint with one module per status (default: two healthy ones)."""
    rows = [
        ModuleRow(
            name=f"m{i}", block=i, kind="q_proj", shape=(8, 8), status=status, debiased=True, damping=0.01, loss=0.1, bias_ratio=0.1,
            top_eigenvalue=0.1, shift=0.1, weight_change=0.1, dead_columns=0,
        )
        for i, status in enumerate(statuses or (Status.ok, Status.damped))
    ]  # fmt: skip
    return Quantization.model_validate({
        "schema": 1, "recipe": recipe, "method": "fair_gptq", "settings": {}, "architecture": "llama", "base_digest": "b" * 64,
        "base_weight_digest": "b" * 64, "weight_digest": "w" * 64, "pairs_digest": None, "text_digest": None, "pairs": 1, "texts": 1,
        "tokens": 1, "versions": {}, "seed": 0, "bytes_base": 1, "bytes_packed": 1, "notes": [], "modules": rows,
    })  # fmt: skip


def environment(**changes: Any) -> Environment:
    """How the items were measured; the weights are those of `quantization`."""
    values: dict[str, Any] = {
        "role": Role.gate, "weight_digest": "w" * 64, "versions": {"torch": "2.13.0", "lm-eval": "0.4.13"}, "dtype": "float32",
        "device": "cpu", "threads": 1, "batch_tokens": 512, "seed": 0, "start_token": {"text": "<s>"}, "context": 64,
        "prompts_beyond_context": 0, "packed_kernel": None, "tasks": {},
    }  # fmt: skip
    return Environment(**(values | changes))
