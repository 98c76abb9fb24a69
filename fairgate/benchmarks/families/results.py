"""What the plain `lm_eval` command, which writes no item table, makes of an answer."""

from __future__ import annotations

from typing import Any

from fairgate.benchmarks.families.boxed import read_answer


def prefers_first(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """For the plain `lm_eval` command, which knows no token counts.

    Both measures use the summed log-likelihood.
    """
    first, second = results[0][0], results[1][0]
    return {"pct_stereotype": float(first > second), "likelihood_diff": abs(first - second)}


def answered(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """For the plain `lm_eval` command: was an answer given, and was it the right one?

    Accuracy is of all items, not of the answered ones.
    """
    answer = read_answer(results[0], doc["answers"])
    return {"answered": float(answer >= 0)} | ({"acc": float(answer == doc["label"])} if "label" in doc else {})


def spoke(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """For the plain `lm_eval` command, which has no classifier: whether anything was said."""
    return {"nonempty": float(bool(results[0].strip()))}
