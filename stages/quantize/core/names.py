"""The named variants of the method. No torch here, so that settings can be read without it."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """How the fairness term enters (`stages.quantize.core.fair` has the formulas)."""

    exact = "exact"  # the closed form of the objective
    authors = "authors"  # the public code's default
    authors_sum = "authors-sum"  # the public code with summed Hessians
    error_only = "error-only"  # no shift


class Alignment(StrEnum):
    """Which positions of the two sentences of a pair are compared (docs/methods.md)."""

    aligned = "aligned"  # the common suffix by position, one row for the means of the differing spans
    positional = "positional"  # by position, up to the end of the shorter sentence
    positional_padded = "positional-padded"  # up to the end of the longer one; pads enter H and D (reproduction only)
    equal_length = "equal-length"  # positional; pairs of unequal token length are dropped
    pooled_mean = "pooled-mean"  # one row: the means over all tokens
    pooled_last = "pooled-last"  # one row: the last tokens
    group_mean = "group-mean"  # one row: means after the common prefix, stereotype minus anti-stereotype, averaged by group
