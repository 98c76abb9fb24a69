"""Evaluate one model: task files -> items -> log-likelihoods or text -> item table, metrics."""
