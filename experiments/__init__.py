"""What was tried, declared beforehand, with its results.

Nothing here is imported by a stage, a flow or a benchmark.
"""
