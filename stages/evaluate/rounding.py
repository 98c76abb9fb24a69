"""What 16 bits on a CPU change: a sample of the scored items again in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.evaluate.model import Model, load
from stages.evaluate.score import score
from stages.evaluate.tokens import Encoded


def rounding(model: Model, folder: Path, sample: Sequence[tuple[Encoded, list[float]]]) -> dict[str, float] | None:
    """How far log-likelihoods are from those of the same weights in float32.

    Args:
        sample: items with their log-likelihoods.
    Returns:
        items: their number. mean, max: absolute difference per token, nats. flips: share of items
        whose likeliest option differs. None means that the sample is empty.
    """
    if not sample:
        return None
    exact = score(load(folder, dtype="float32", device=model.device.type), [e for e, _ in sample], batch_tokens=2048)
    pairs = [(rounded, reference, encoded) for (encoded, rounded), reference in zip(sample, exact, strict=True)]
    per_token = np.concatenate(
        [np.abs(np.subtract(a, b)) / [len(request.option) for request in encoded.requests] for a, b, encoded in pairs]
    )
    flips = [np.argmax(rounded) != np.argmax(reference) for rounded, reference, _ in pairs]
    return {
        "items": len(sample),
        "mean": round(float(per_token.mean()), 6),
        "max": round(float(per_token.max()), 6),
        "flips": round(float(np.mean(flips)), 6),
    }
