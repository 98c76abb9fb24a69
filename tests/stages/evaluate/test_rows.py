from __future__ import annotations

import pytest

from stages.evaluate.rows import Packing, rows_of
from stages.evaluate.task import Item
from stages.evaluate.tokens import Encoded, Request


def items(*requests: list[tuple[str, str]]) -> list[Encoded]:
    """One item per argument; every letter is a token."""
    item = Item("x", "x", None, None, None, (), ())
    return [Encoded(item, tuple(Request(tuple(map(ord, c)), tuple(map(ord, o))) for c, o in part), "") for part in requests]


def texts_read(encoded: list[Encoded], max_packed: int | None = None) -> dict[tuple[int, int], str]:
    """The last scored token of each option, after the tokens that its place attends to."""
    found = {}
    for row in rows_of(encoded, Packing(max_packed)):
        for i, k, places, targets in row.targets:
            seen = [j for j in range(places[-1] + 1) if places[-1] < row.bounds[j]]
            assert [row.positions[j] for j in seen] == list(range(len(seen)))
            found[i, k] = "".join(chr(row.tokens[j]) for j in seen) + chr(targets[-1])
    return found


def test_every_option_sees_its_own_text_alone() -> None:
    encoded = items(
        [("the old map", " is here"), ("the old map", " was sold by me")], [("the old map", " was sold to him"), ("a", "b")]
    )  # as in the module's picture
    wanted = {(i, k): "".join(map(chr, r.context + r.option)) for i, e in enumerate(encoded) for k, r in enumerate(e.requests)}
    assert texts_read(encoded) == wanted
    assert texts_read(encoded, max_packed=12) == wanted
    assert texts_read(encoded, max_packed=0) == wanted


def test_a_context_shared_by_two_items_is_read_once() -> None:
    context = "a long context of both questions."
    encoded = items([(context, " one"), (context, " two")], [(context, " one more"), (context, " six")])
    (row,) = rows_of(encoded)
    # " one" is the beginning of " one more"; the last token of a path is never read.
    assert len(row.tokens) == len(context) + len(" one mor") + len("tw") + len("si")
    assert row.branches


def test_equal_requests_are_one_path_and_one_read_each() -> None:
    (row,) = rows_of(items([("abcd", "e")], [("abcd", "e")]))
    assert "".join(map(chr, row.tokens)) == "abcd"
    assert not row.branches
    assert [(i, k) for i, k, _, _ in row.targets] == [(0, 0), (1, 0)]


def test_paths_with_little_in_common_have_rows_of_their_own() -> None:
    assert len(rows_of(items([("a", "bcdefgh"), ("a", "zyxwvut")]))) == 2


@pytest.mark.parametrize(("count", "rows"), [(20, 1), (200, 8)])
def test_a_row_does_not_grow_without_bound(count: int, rows: int) -> None:
    encoded = items(*([("begin", f"{chr(1000 + n)}234567890")] for n in range(count)))
    found = rows_of(encoded)
    assert len(found) == rows
    assert max(len(row.tokens) for row in found) <= 256


def test_a_path_beyond_the_window_stands_alone() -> None:
    encoded = items([("shared beginning", " one"), ("shared beginning", " two")])
    assert len(rows_of(encoded)) == 1
    assert [row.branches for row in rows_of(encoded, Packing(10))] == [False, False]
