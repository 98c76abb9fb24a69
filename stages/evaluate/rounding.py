"""What 16 bits on a CPU change: a sample of the scored items again in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.evaluate.model import Model, load
from stages.evaluate.score import score
from stages.evaluate.tokens import Encoded


def rounding(model: Model, folder: Path, sample: Sequence[tuple[Encoded, list[float]]]) -> dict[str, float] | None:
    """Difference between the log-likelihoods of `sample` and those of the same weights in float32; None without a sample.

    Returns: items; mean and max absolute difference per token, nats; flips, the share of items whose likeliest option is another one.
    """
    if not sample:
        return None
    exact = score(load(folder, dtype="float32", device=model.device.type), [e for e, _ in sample], batch_tokens=2048)
    pairs = [(found, wanted, e) for (e, found), wanted in zip(sample, exact, strict=True)]
    per_token = np.concatenate(
        [np.abs(np.subtract(found, wanted)) / [len(request.option) for request in e.requests] for found, wanted, e in pairs]
    )
    flips = [np.argmax(found) != np.argmax(wanted) for found, wanted, _ in pairs]
    return {
        "items": len(sample),
        "mean": round(float(per_token.mean()), 6),
        "max": round(float(per_token.max()), 6),
        "flips": round(float(np.mean(flips)), 6),
    }
