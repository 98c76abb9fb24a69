from __future__ import annotations

import pytest
import torch

from fairgate.support.errors import BadRecord
from stages.quantize.methods.learned.data import Draw, Rotation, Triple, packed, rows, short


def test_every_item_comes_once_before_any_comes_again() -> None:
    rotation = Rotation(list(range(5)), "seed")
    seen = [item for step in range(5) for item in rotation.take(step, 3)]
    assert [sorted(seen[n : n + 5]) for n in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert seen[:5] != seen[5:10]


def test_a_step_can_be_drawn_again_by_its_number() -> None:
    one, two = (Rotation(list(range(50)), "seed") for _ in range(2))
    for step in range(9):
        one.take(step, 7)
    assert one.take(9, 7) == two.take(9, 7)
    assert two.take(9, 7) != Rotation(list(range(50)), "other").take(9, 7)


def test_triples_come_in_equal_parts_by_side() -> None:
    triples = [Triple(group, ([1, n], [2, n, n], [3, n])) for group, count in (("b", 2), ("a", 9)) for n in range(count)]
    batch, groups = Draw([[1, 2]], triples, pad=0, seed=0).triples(0, 4)
    assert groups.tolist() == [0, 0, 1, 1]
    assert batch.ids[:, 0].tolist() == [1] * 4 + [2] * 4 + [3] * 4
    stereotype, anti, unrelated = batch.ids.chunk(3)
    assert torch.equal(stereotype[:, 1], anti[:, 1])
    assert torch.equal(stereotype[:, 1], unrelated[:, 1])
    assert sorted(stereotype[2:, 1].tolist()) == [0, 1]  # both of group b


def test_slots_are_enough_for_every_step() -> None:
    triples = [Triple(group, ([1] * length, [2], [3])) for group in "ab" for length in (3, 7)]
    draw = Draw([[0] * 5] * 3, triples, pad=0, seed=0)
    slots = draw.slots(2, 2)
    assert slots.texts == 2 * 5
    assert slots.triples == max(draw.triples(step, 2)[0].ids.numel() for step in range(8)) == 2 * 3 * 7
    assert Draw([[0, 1]], [], pad=0, seed=0).slots(1, 0).triples == 0


def test_rows_are_padded_on_the_right() -> None:
    found = rows([[5, 6, 7], [8]], pad=9)
    assert found.ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert found.lengths.tolist() == [3, 1]


def test_texts_are_cut_into_rows_of_one_width() -> None:
    assert packed([[1, 2, 3], [4, 5], [6, 7]], 3) == [[1, 2, 3], [4, 5, 6]]
    assert packed([[1, 2, 3], [4, 5, 6]], 3) == [[1, 2, 3], [4, 5, 6]]
    assert packed([[1, 2]], 3) == [[1, 2]]


def test_triples_have_one_shape_where_that_is_asked_for() -> None:
    triples = [Triple("a", ([1] * n, [2], [3])) for n in (2, 3, 9)]
    draw = Draw([[1, 2]], triples, pad=0, seed=0)
    assert {draw.triples(step, 1, alike=True)[0].ids.shape for step in range(3)} == {(3, 9)}
    assert {draw.triples(step, 1)[0].ids.shape for step in range(3)} == {(3, 2), (3, 3), (3, 9)}


def test_triples_with_a_longer_sentence_are_left_out_and_no_group_may_end_empty() -> None:
    triples = [Triple("a", ([1] * 3, [2] * 9, [3])), Triple("a", ([1] * 3, [2], [3])), Triple("b", ([1], [2], [3] * 5))]
    assert short(triples, 5) == triples[1:]
    assert short(triples, 9) == triples
    with pytest.raises(BadRecord, match="no pair of b"):
        short(triples, 4)
