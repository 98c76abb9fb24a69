"""A Hugging Face model folder: what its files are, what its weights are, and whether it is fit.

Fetch, quantize, evaluate and report read a model through this package. Nothing else opens weights.
"""
