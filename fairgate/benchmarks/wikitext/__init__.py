"""WikiText-2: perplexity per token, and per word by lm-eval's rule."""
