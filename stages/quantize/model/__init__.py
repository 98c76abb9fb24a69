"""A causal language model, block by block: its groups of modules with a shared input, and the pass through them."""
