from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fairgate.contracts.records import Pair
from fairgate.support.errors import BadRecord
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import Batch, EncodedPair, difference_rows, encode_pairs, pair_batches
from tests.tiny import make_tokenizer


def _pair(a: str, b: str, pair_id: str = "p", group: str = "g") -> Pair:
    return Pair(pair_id=pair_id, group=group, target="t", stereotype=a, anti_stereotype=b, unrelated="x")


def _D(pairs: list[EncodedPair], alignment: Alignment, X: dict[str, tuple[Tensor, Tensor]], batch_tokens: int = 1000) -> Tensor:
    """Differences of made-up inputs X (by pair id and side); pads are poisoned."""
    rows = []
    for batch in pair_batches(pairs, alignment, 0, batch_tokens, {"g": 0}):
        flat = torch.full((*batch.ids.shape, 3), 1e9)
        order = _order(batch, pairs)
        for index, pair in enumerate(order):
            for side in (0, 1):
                value = X[pair.pair_id][side]
                flat[2 * index + side, : len(value)] = value
        assert batch.M is not None
        rows.append(torch.sparse.mm(batch.M, flat.view(-1, 3)))
    return torch.cat(rows)


def _order(batch: Batch, pairs: list[EncodedPair]) -> list[EncodedPair]:
    by_tokens = {(tuple(pair.a), tuple(pair.b)): pair for pair in pairs}
    sides = [tuple(row[mask].tolist()) for row, mask in zip(batch.ids, batch.mask, strict=True)]
    return [by_tokens[sides[i], sides[i + 1]] for i in range(0, len(sides), 2)]


def test_aligned_uses_suffix_positions_and_span_means() -> None:
    rows = difference_rows([1, 2, 3, 9], [1, 7, 9], Alignment.aligned)  # prefix 1, spans (2, 3) and (7), suffix 9
    assert rows == [[(0, 1, 0.5), (0, 2, 0.5), (1, 1, -1.0)], [(0, 3, 1.0), (1, 2, -1.0)]]


def test_aligned_on_one_differing_token_equals_positional_without_the_prefix() -> None:
    a, b = [1, 2, 3, 4], [1, 9, 3, 4]
    assert difference_rows(a, b, Alignment.aligned) == difference_rows(a, b, Alignment.positional)[1:]


def test_aligned_with_an_empty_span_keeps_the_suffix_only() -> None:
    assert difference_rows([1, 2], [1, 5, 2], Alignment.aligned) == [[(0, 1, 1.0), (1, 2, -1.0)]]


def test_overlapping_prefix_and_suffix_are_counted_once() -> None:
    rows = difference_rows([1, 1], [1, 1, 1], Alignment.aligned)
    assert rows == []


@pytest.mark.parametrize(
    ("alignment", "count"),
    [
        (Alignment.positional, 3),
        (Alignment.positional_padded, 4),
        (Alignment.pooled_mean, 1),
        (Alignment.pooled_last, 1),
        (Alignment.group_mean, 1),
    ],
)
def test_other_alignments_have_the_documented_number_of_rows(alignment: Alignment, count: int) -> None:
    rows = difference_rows([1, 2, 3, 4], [1, 5, 6], alignment)
    assert len(rows) == count
    if alignment is not Alignment.positional_padded:
        assert all(abs(sum(weight for _, _, weight in row)) < 1e-12 for row in rows)


def test_group_mean_starts_after_the_common_prefix() -> None:
    assert difference_rows([1, 2, 3], [1, 9], Alignment.group_mean) == [[(0, 1, 0.5), (0, 2, 0.5), (1, 1, -1.0)]]


def test_pads_never_enter_a_difference_whatever_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = [
        EncodedPair("a", "g", [1, 2, 3, 4, 5], [1, 6]),
        EncodedPair("b", "g", [1, 7], [1, 8, 9]),
        EncodedPair("c", "g", [2, 3], [2, 4]),
    ]
    X = {
        pair.pair_id: (torch.randn(len(pair.a), 3, generator=generator), torch.randn(len(pair.b), 3, generator=generator)) for pair in pairs
    }
    for alignment in (Alignment.aligned, Alignment.positional, Alignment.pooled_mean, Alignment.pooled_last, Alignment.group_mean):
        together = _D(pairs, alignment, X)
        alone = _D(pairs, alignment, X, batch_tokens=1)
        assert together.abs().max() < 100
        assert torch.allclose(together.T @ together, alone.T @ alone, atol=1e-5)


def test_padded_alignment_lets_pads_in() -> None:
    pairs = [EncodedPair("a", "g", [1, 2, 3], [1, 6])]
    X = {"a": (torch.zeros(3, 3), torch.zeros(2, 3))}
    assert _D(pairs, Alignment.positional_padded, X).abs().max() > 1e8
    batch = next(pair_batches(pairs, Alignment.positional_padded, 0, 100, {"g": 0}))
    assert batch.counts.sum() == 6
    assert batch.mask.sum() == 5


def test_pairs_are_never_split_over_batches() -> None:
    pairs = [EncodedPair(str(i), "g", [1] * (i + 2), [2] * (i + 1)) for i in range(9)]
    batches = list(pair_batches(pairs, Alignment.aligned, 0, 12, {"g": 0}))
    assert len(batches) > 2
    assert all(batch.ids.shape[0] == 2 * batch.pairs == batch.sentences for batch in batches)
    assert sum(batch.pairs for batch in batches) == 9


def test_start_token_is_added_once() -> None:
    tokenizer = make_tokenizer()
    encoded = encode_pairs([_pair("The gardener", "The pilot")], tokenizer, Alignment.aligned, "bias_type")[0]
    assert encoded.a[0] == encoded.b[0] == tokenizer.bos_token_id
    assert encoded.a[1] != tokenizer.bos_token_id


def test_broken_pairs_raise_with_their_id() -> None:
    tokenizer = make_tokenizer()
    pair = _pair("The gardener", "The pilot", "7f")
    with pytest.raises(BadRecord, match=r"7f.*twice"):
        encode_pairs([pair, pair], tokenizer, Alignment.aligned, "bias_type")
    for a, b in (("", "x"), ("x", "x")):
        with pytest.raises(ValueError, match="bad"):
            _pair(a, b, "bad")


def test_equal_length_drops_unequal_pairs() -> None:
    tokenizer = make_tokenizer()
    pairs = [_pair("The gardener", "The pilot", "1"), _pair("salt and bread", "bread and salt", "2")]
    kept = encode_pairs(pairs, tokenizer, Alignment.equal_length, "bias_type")
    assert all(len(pair.a) == len(pair.b) for pair in kept)
    assert "2" in {pair.pair_id for pair in kept}
