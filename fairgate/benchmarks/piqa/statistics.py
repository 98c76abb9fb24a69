"""Metrics of PIQA (Bisk et al. 2020): accuracy in sum and per character."""

from __future__ import annotations

from fairgate.benchmarks.families.accuracy import CHOICE

BENCHMARKS = {"piqa": CHOICE, "piqa_full": CHOICE}
