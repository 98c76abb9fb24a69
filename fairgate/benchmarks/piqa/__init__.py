"""PIQA: which of two solutions reaches a goal."""
