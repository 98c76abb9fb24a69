"""The experiment of learned fair rounding: declared cells, run, measured, chosen and tabulated."""
