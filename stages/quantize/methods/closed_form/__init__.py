"""GPTQ and Fair-GPTQ over a whole model: batches in, block after block quantized, in as much memory
as there is.
"""
