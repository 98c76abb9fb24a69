"""Metrics of the perplexity tasks."""

from __future__ import annotations

from fairgate.benchmarks.families.perplexity import PERPLEXITY

BENCHMARKS = {"perplexity": PERPLEXITY, "perplexity_dev": PERPLEXITY}
