"""A causal language model, block by block: its modules by shared input, and the pass through it.

Read the files in this order:

    architectures      what a block of each model family consists of, as data
    tracer             the same for a family that is not in that table
    streamed           a model on disk whose weights come into memory one block at a time
    calibration_pass   the calibration data through the model, block by block
"""
