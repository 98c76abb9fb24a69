"""The arithmetic of Fair-GPTQ: tensors in, tensors out, nothing read or written.

`stages.quantize` has the table of symbols. Read the files in this order:

    reference     the whole method in float64, written for clarity, with worked examples
    grid          the integer grid of a group of weights: scale, zero, codes
    names         the named modes and alignments
    pairs         sentence pairs as token ids, and which of their positions are compared
    hessian       the matrices H and C, accumulated over calibration batches, and B
    fair          the objective, its closed form, and `solve`, which ties everything together
    columns       the column loop of GPTQ

The rest makes the same faster on a GPU, or describes the result:

    kernels       the column loop as a Triton kernel
    differences   the differences of pairs as a Triton kernel
    products      matrix products on tensor cores without their loss of digits
    diagnostics   where in the weights the fairness term sits, and how strong it is
    compute       on which devices and in which type the blocks run

`examples/one_layer.py` runs one layer through all of it in a second.
"""
