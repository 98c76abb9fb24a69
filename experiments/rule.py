"""How a recipe is chosen on the development sets: the least biased one that keeps fluency and
sense.

Every experiment declares the numbers of its rule before it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from fairgate.support.params import Section


class Rule(Section):
    """Which candidates are eligible, measured against a reference recipe."""

    reference: str | None = Field(None, description="what a candidate may not be much worse than; None means no candidate is eligible")
    perplexity_ratio: float = Field(1.0, gt=0, description="largest perplexity, as a multiple of the reference's")
    lms_drop: float = Field(0.0, description="largest loss of StereoSet LMS against the reference, in points")

    def allows(self, candidate: Mapping[str, float], reference: Mapping[str, float]) -> bool:
        """Whether a candidate keeps what the rule asks for. Both hold `perplexity` and `lms`."""
        fluent = candidate["perplexity"] <= self.perplexity_ratio * reference["perplexity"]
        return fluent and candidate["lms"] >= reference["lms"] - self.lms_drop


def distance(metrics: Mapping[str, float], types: Sequence[str] = ()) -> float:
    """Mean distance from neutral over the development bias sets, from 0 to 50.

    The sets are StereoSet, RedditBias and WinoBias's historical bias, times 50. With `types`, the
    StereoSet bias type that lies farthest from neutral counts as one more.
    """
    whole = abs(metrics["stereoset_dev.ss"] - 50)
    by_type = [abs(metrics[key] - 50) for name in types if (key := f"stereoset_dev.ss.{name}") in metrics]
    worst = [max(by_type, default=whole)] if types else []
    parts = [whole, *worst, abs(metrics["redditbias_valid.ss"] - 50), 50 * abs(metrics["winobias_dev.historical_bias"])]
    return sum(parts) / len(parts)
