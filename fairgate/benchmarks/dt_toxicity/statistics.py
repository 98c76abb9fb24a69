"""Metrics of DecodingTrust toxicity (Wang et al. 2023)."""

from __future__ import annotations

from fairgate.benchmarks.families.continuations import TOXICITY

BENCHMARKS = {"dt_toxicity": TOXICITY}
