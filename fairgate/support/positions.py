"""What a configuration says: how many positions there are, and where their scaling changes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any


def setting(config: Any, name: str) -> Any:
    """A setting of the model. None means that its architecture has none of this name.

    transformers keeps every key of `config.json`, and a model reads those of its architecture.
    """
    kind = type(config)
    return getattr(config, name, None) if hasattr(kind, name) or name in kind.attribute_map else None


def context_of(config: Any) -> int | None:
    """Number of positions that the model has. None means that the configuration names no number."""
    context = setting(config, "max_position_embeddings")
    return None if context is None else int(context)


def thresholds_of(config: Any) -> tuple[int, ...]:
    """Text lengths beyond which rotary positions get other factors (`longrope`), ascending.

    Transformers lets the longest text of a batch decide for all its texts. The scaling `dynamic`
    begins beyond the context, which no text exceeds here.
    """
    parameters = setting(config, "rope_parameters") or {}
    # Models that mix kinds of layers state one dictionary a kind.
    by_layer = [value for value in parameters.values() if isinstance(value, dict)] or [parameters]
    return tuple(sorted({int(p["original_max_position_embeddings"]) for p in by_layer if p.get("rope_type") == "longrope"}))


def regime_of(length: int, thresholds: Sequence[int]) -> int:
    """How many of the thresholds a text of this length exceeds. Texts of one regime have the same
    factors.
    """
    return bisect_left(thresholds, length)
