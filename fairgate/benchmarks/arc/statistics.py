"""Metrics of ARC (Clark et al. 2018): accuracy in sum and per character."""

from __future__ import annotations

from fairgate.benchmarks.families.accuracy import CHOICE

BENCHMARKS = {"arc_easy": CHOICE, "arc_challenge": CHOICE}
