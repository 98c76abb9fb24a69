"""Fair-GPTQ: quantize a causal language model under a group-fairness term (docs/methods.md).

Symbols, the same in every module of `core`; rows of X are tokens:

    W       [r, d]   float32   weight of stacked modules that share an input: r outputs, d inputs
    target  [r, d]   float32   shifted weight W' = W - W B A^-1, still full precision
    Q       [r, d]   float32   quantized weight; codes [r, d] uint8; scale, zero [r, groups] float32
    X       [n, d]   bfloat16  calibration input, one row per valid token (float32 on a CPU)
    M       [m, n]   float32   sparse: what to subtract from what, one row per difference
    D       [m, d]   float32   M X, aligned differences of the two sentences of a pair
    G       [d, d]   float32   sum of x x^T
    H       [d, d]   float32   (2/N) sum over sentences of X_s^T X_s, general text mixed in
    C       [d, d]   float32   sum over pairs of D_p^T D_p, without alpha
    B       [d, d]   float32   2 alpha/P C (raw) or rho (tr H / tr C) C
    A       [d, d]   float32   H + B, damped once: the Hessian of the fair problem
    U       [d, d]   float32   upper triangular, U^T U = A^-1

Four floors, each of which imports the ones below it:

    run       one quantization: checks, forecast, resume, export; `stage.py` is the front door
    methods   how a recipe chooses codes
    model     a causal language model, block by block
    core      the arithmetic: tensors in, tensors out
"""
