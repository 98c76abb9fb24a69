"""What several benchmarks share: terms and families of statistics."""
