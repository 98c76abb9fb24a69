"""Evaluate one model on benchmarks by likelihood: task files -> items -> log-likelihoods -> item table and metrics."""
