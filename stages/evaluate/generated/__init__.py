"""Tasks with generated text: sampling, reading an answer out of it, scoring it."""
