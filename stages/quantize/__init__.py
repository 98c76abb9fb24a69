"""Fair-GPTQ: quantize a causal language model under a group-fairness term (docs/methods.md).

Symbols, the same in every module of this folder; rows of X are tokens:

    W   [r, d]   float32   weight of the stacked modules that share an input: r outputs, d inputs
    target [r, d] float32  W' of docs/methods.md: W after the shift, full precision
    Q   [r, d]   float32   quantized weight;  codes [r, d] uint8;  scale, zero [r, groups]
    X   [n, d]   float32   calibration input, one row per valid token
    D   [m, d]   float32   aligned differences of the two sentences of a pair
    G   [d, d]   float32   sum of x x^T
    H   [d, d]   float32   (2/N) sum over sentences of X_s^T X_s, general text mixed in
    C   [d, d]   float32   sum over pairs of D_p^T D_p, without alpha
    B   [d, d]   float32   2 alpha/P C (raw) or rho (tr H / tr C) C
    T   [d, d]   float32   H + B, damped once
    U   [d, d]   float32   upper triangular, U^T U = T^-1

Layout: settings -> tokens -> collect (H, C) -> objective (T, target, U) -> columns (codes) -> export.
"""
