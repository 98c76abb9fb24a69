"""Metrics of HellaSwag (Zellers et al. 2019): accuracy in sum and per character."""

from __future__ import annotations

from fairgate.benchmarks.families.accuracy import CHOICE

BENCHMARKS = {"hellaswag": CHOICE}
