"""A causal language model, block by block: its modules by shared input, and the pass through it.

architectures      what a block of each model family consists of, as data
tracer             the same for a family that nobody wrote down
streamed           a model on disk whose weights come into memory one block at a time
calibration_pass   the calibration data through the model, block by block
"""
