"""Perplexity of text that the calibration does not hold: BoolQ passages."""
