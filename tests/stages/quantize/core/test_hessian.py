from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fairgate.support.errors import FairgateError
from stages.quantize.core.hessian import FairnessWeight, HessianAccumulator, Hessians
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import Batch, EncodedPair, pair_batches, text_batches

GROUPS = {"g": 0, "h": 1}
CPU = torch.device("cpu")


def _pairs(count: int = 12) -> list[EncodedPair]:
    generator = torch.Generator().manual_seed(3)
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))  # noqa: E731
    pairs = []
    for i in range(count):
        prefix, suffix = [1] * draw(1, 3), [2] * draw(1, 4)
        a, b = ([draw(10, 30) for _ in range(draw(1, 4))] for _ in range(2))
        pairs.append(EncodedPair(str(i), "gh"[i % 2], [*prefix, 31, *a, *suffix], [*prefix, 32, *b, *suffix]))
    return pairs


TABLE = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))


def _inputs(batch: Batch) -> Tensor:
    """A causal stand-in for a layer: position and token decide; pads are poisoned."""
    X = TABLE[batch.ids].cumsum(1)
    return X.masked_fill(~batch.mask[..., None], 1e6)


def _accumulated(
    pairs: list[EncodedPair], alignment: Alignment = Alignment.aligned, batch_tokens: int = 200, n_groups: int = 0
) -> HessianAccumulator:
    accumulator = HessianAccumulator(6, CPU, True, n_groups)
    for batch in pair_batches(pairs, alignment, 0, batch_tokens, GROUPS):
        accumulator.add(_inputs(batch), batch)
    return accumulator


def _swap(pair: EncodedPair) -> EncodedPair:
    return EncodedPair(pair.pair_id, pair.group, pair.b, pair.a)


def _same(a: Hessians, b: Hessians) -> bool:
    assert a.C is not None
    assert b.C is not None
    return torch.allclose(a.H, b.H, rtol=1e-4) and torch.allclose(a.C, b.C, rtol=1e-4, atol=1e-4)


def test_batch_size_padding_and_order_change_nothing() -> None:
    pairs = _pairs()
    reference = _accumulated(pairs).finish(None)
    assert _same(reference, _accumulated(pairs, batch_tokens=1).finish(None))
    assert _same(reference, _accumulated(pairs[::-1], batch_tokens=40).finish(None))


def test_running_sums_equal_the_formula() -> None:
    pairs = _pairs()
    expected = torch.zeros(6, 6)
    for pair in pairs:
        for side in (pair.a, pair.b):
            x = TABLE[torch.tensor(side)].cumsum(0)
            expected += x.T @ x
    H = _accumulated(pairs).finish(None).H
    assert torch.allclose(H, 2 * expected / (2 * len(pairs)), rtol=1e-4)


def test_swapping_the_sides_of_any_pair_changes_nothing_pairwise() -> None:
    pairs = _pairs()
    assert _same(_accumulated(pairs).finish(None), _accumulated([_swap(pairs[0]), *pairs[1:]]).finish(None))


def test_swapping_one_pair_changes_the_group_mean_and_swapping_all_does_not() -> None:
    pairs = _pairs()
    C = _accumulated(pairs, Alignment.group_mean, n_groups=2).finish(None).C
    one_swapped = _accumulated([_swap(pairs[0]), *pairs[1:]], Alignment.group_mean, n_groups=2).finish(None).C
    all_swapped = _accumulated([_swap(pair) for pair in pairs], Alignment.group_mean, n_groups=2).finish(None).C
    assert C is not None
    assert one_swapped is not None
    assert all_swapped is not None
    assert torch.allclose(C, all_swapped, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(C, one_swapped, rtol=1e-2)
    assert torch.linalg.matrix_rank(C) <= 2


def test_group_mean_matches_its_formula() -> None:
    pairs = _pairs()
    by_group: dict[str, list[Tensor]] = {"g": [], "h": []}
    for pair in pairs:
        a, b = (TABLE[torch.tensor(side)].cumsum(0) for side in (pair.a, pair.b))
        p = next(i for i, (x, y) in enumerate(zip(pair.a, pair.b, strict=False)) if x != y)
        by_group[pair.group].append(a[p:].mean(0) - b[p:].mean(0))
    C_group = torch.zeros(6, 6)
    for differences in by_group.values():
        mean = torch.stack(differences).mean(0)
        C_group += len(differences) / len(pairs) * torch.outer(mean, mean)
    hessians = _accumulated(pairs, Alignment.group_mean, n_groups=2).finish(None)
    B = FairnessWeight(alpha=3.0).matrix(hessians)
    assert B is not None
    assert torch.allclose(B, 2 * 3.0 * C_group, rtol=1e-3, atol=1e-4)


def test_identical_sides_give_zero() -> None:
    pairs = [EncodedPair("x", "g", [1, 5, 2], [1, 5, 2])]
    for alignment in (Alignment.positional, Alignment.pooled_mean):
        C = _accumulated(pairs, alignment).finish(None).C
        assert C is not None
        assert C.abs().max() < 1e-12  # a mean over positions cancels up to rounding


@pytest.mark.parametrize("alignment", [Alignment.aligned, Alignment.positional])
@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_B_lies_between_zero_and_four_alpha_H_on_pairs_alone(alignment: Alignment, alpha: float) -> None:
    hessians = _accumulated(_pairs(), alignment).finish(None)
    B = FairnessWeight(alpha=alpha).matrix(hessians)
    assert B is not None
    tolerance = 1e-3 * float(hessians.H.trace())
    assert torch.linalg.eigvalsh(B).min() > -tolerance
    assert torch.linalg.eigvalsh(4 * alpha * hessians.H - B).min() > -tolerance


def test_rho_of_a_module_is_its_trace_ratio() -> None:
    hessians = _accumulated(_pairs()).finish(None)
    B = FairnessWeight(rho=0.03).matrix(hessians)
    assert B is not None
    assert float(B.trace() / hessians.H.trace()) == pytest.approx(0.03, rel=1e-5)


def test_alpha_zero_has_no_matrix() -> None:
    assert FairnessWeight(alpha=0.0).matrix(_accumulated(_pairs()).finish(None)) is None


def test_no_C_is_allocated_unless_asked_for() -> None:
    accumulator = HessianAccumulator(6, CPU, False)
    for batch in pair_batches(_pairs(), Alignment.aligned, 0, 100, GROUPS):
        accumulator.add(_inputs(batch), batch)
    assert accumulator.C is None
    assert accumulator.finish(None).C is None


def test_general_text_is_mixed_by_its_share_and_keeps_the_scale() -> None:
    accumulator = _accumulated(_pairs())
    pairs_only = accumulator.finish(None).H
    for batch in text_batches([[3, 4, 5], [6, 7]], 0, 100):
        accumulator.add(_inputs(batch), batch)
    w = accumulator.text_tokens / (accumulator.text_tokens + accumulator.pair_tokens)
    mixed = accumulator.finish(None)
    assert mixed.mix == pytest.approx(w)
    assert torch.allclose(accumulator.finish(0.0).H, pairs_only)
    text = accumulator.finish(1.0).H
    assert torch.allclose(mixed.H, (1 - w) * pairs_only + w * text, rtol=1e-4)
    mean_tokens = accumulator.pair_tokens / accumulator.sentences
    assert accumulator.G_text is not None
    assert torch.allclose(text, 2 * mean_tokens * accumulator.G_text / accumulator.text_tokens)


def test_a_share_without_its_data_is_refused() -> None:
    with pytest.raises(FairgateError, match="text_share"):
        _accumulated(_pairs()).finish(0.5)
    with pytest.raises(FairgateError, match="no calibration token"):
        HessianAccumulator(6, CPU, False).finish(None)
