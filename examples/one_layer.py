"""Fair-GPTQ on one made-up layer: `python -m examples.one_layer`. Set a breakpoint anywhere."""

from __future__ import annotations

import torch

from stages.quantize.core.fair import objective, solve
from stages.quantize.core.grid import Grid
from stages.quantize.core.hessian import FairnessWeight, HessianAccumulator
from stages.quantize.core.names import Alignment, Mode
from stages.quantize.core.pairs import EncodedPair, pair_batches

OUTPUTS, INPUTS, WORDS = 8, 32, 40


def main() -> dict[str, float]:
    """Quantize the layer without and with the fairness term; print and return the objective J."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(OUTPUTS, INPUTS, generator=generator)
    embedding = torch.randn(WORDS, INPUTS, generator=generator)
    # The two sentences of a pair have eight words each and differ in the third alone.
    sentences = torch.randint(WORDS, (64, 8), generator=generator).tolist()
    pairs = [EncodedPair(f"pair {n}", "group", [*s[:2], 0, *s[3:]], [*s[:2], 1, *s[3:]]) for n, s in enumerate(sentences)]

    accumulator = HessianAccumulator(INPUTS, torch.device("cpu"), with_C=True)
    for batch in pair_batches(pairs, Alignment.aligned, pad=0, batch_tokens=256, groups={"group": 0}):
        # X [sentences, 8, INPUTS]: every word knows the words before it, as behind attention.
        accumulator.add(embedding[batch.ids].cumsum(1) / torch.arange(1, 9)[:, None], batch)
    hessians = accumulator.finish(text_share=None)
    H, B = hessians.H, FairnessWeight(alpha=0.1).matrix(hessians)
    assert hessians.C is not None and B is not None

    grid = Grid(bits=4, group_size=16, symmetric=True)
    plain = solve(W, H, None, grid, Mode.exact, damping=0.01)
    fair = solve(W, H, B, grid, Mode.exact, damping=0.01)

    print(f"traces: H {H.trace():.1f}, C {hessians.C.trace():.1f}, B {B.trace():.1f}")
    for name, row in {"W": W[0], "target": fair.target[0], "codes": fair.rounded.codes[0]}.items():
        print(f"{name:<8}" + "".join(f"{value:>9.3f}" for value in row[:6].tolist()) + "  ...")
    print("\nJ is the objective: rounding error on the inputs + penalty on the pairs; lower is better")
    print(f"{'':<22}{'J':>8} ={'rounding':>10} +{'pairs':>8}")
    zero, values = torch.zeros_like(H), {}
    weights = {"W": W, "target": fair.target, "GPTQ": plain.rounded.Q, "Fair-GPTQ": fair.rounded.Q}
    for name, Q in weights.items():
        J, rounding, penalty = (float(objective(W, Q, *terms)) for terms in ((H, B), (H, zero), (zero, B)))
        print(f"{name:<22}{J:>8.2f}  {rounding:>10.2f}  {penalty:>8.2f}")
        values[name] = J
    return values


if __name__ == "__main__":
    main()
