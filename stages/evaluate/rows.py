"""Requests to rows of tokens in which every shared beginning is read once.

The texts of a task's requests form a tree: options share their question, questions their context,
sentences their first words. A row is a part of that tree, depth first:

    tokens     the old map | is here | was sold | by me | to him
    positions  0   1   2   | 3  4    | 3   4    | 5  6  | 5  6       depth in the tree
    bounds     11  11  11  | 5  5    | 11  11   | 9  9  | 11 11      place after the last descendant

The token at place i attends to places j <= i < bounds[j]. Those are the tokens before it in its own
text, so every text is read as if it stood alone. Equal requests are one path, scored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fairgate.support.positions import regime_of
from stages.evaluate.tokens import Encoded, Request

Ints = npt.NDArray[np.int64]

GREEDY = -1  # instead of a token: the likeliest one at its place
# A row with branches grows to this many tokens, or to twice its longest path. Attention costs the
# square of a row's length.
_LONGEST = 256


@dataclass(frozen=True)
class Packing:
    """Which texts may share a row or a batch.

    longest: length up to which texts can be packed into one row, told apart by a mask. A longer
        text would meet the model's sliding window; ALiBi counts places in the row instead of
        positions, so it allows no packing at all. None means no limit.
    thresholds: lengths at which the model's factors of positions change. The longest text of a
        batch would decide for all, so that no batch has texts on both sides.
    """

    longest: int | None = None
    thresholds: tuple[int, ...] = ()


class Target(NamedTuple):
    """What is scored of one option of one item: the token after each place of a row."""

    item: int
    option: int
    places: list[int]
    tokens: tuple[int, ...]


@dataclass
class Row:
    """One row of a forward pass, grown path by path.

    bounds: for each token the first place that does not attend to it.
    branches: whether texts part in the row, so that it needs a mask.
    regime: how many of the thresholds its texts exceed.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    bounds: list[int] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    branches: bool = False
    regime: int = 0

    def grow(self, path: list[int], shared: int, line: list[int]) -> list[int]:
        """Add a path whose first `shared` tokens stand at line[:shared]; returns all its places."""
        start = len(self.tokens)
        for place in line[shared:]:
            self.bounds[place] = start
        self.branches |= shared < len(line)
        self.tokens += path[shared:]
        self.positions += range(shared, len(path))
        self.bounds += [0] * (len(path) - shared)
        return line[:shared] + list(range(start, len(self.tokens)))

    def close(self, line: list[int]) -> None:
        for place in line:
            self.bounds[place] = len(self.tokens)


def rows_of(encoded: Sequence[Encoded], packing: Packing = Packing()) -> list[Row]:
    """Rows that hold every option of every item, as far as the packing allows."""
    owners: dict[bytes, list[tuple[int, int, Request]]] = {}
    for i, item in enumerate(encoded):
        contexts: dict[int, bytes] = {}  # options share theirs
        for k, request in enumerate(item.requests):
            if id(request.context) not in contexts:
                contexts[id(request.context)] = _bytes(request.context)
            # The last token is only predicted, never read.
            owners.setdefault(contexts[id(request.context)] + _bytes(request.option[:-1]), []).append((i, k, request))
    rows: list[Row] = []
    line: list[int] = []
    before: npt.NDArray[np.uint32] = np.empty(0, dtype=">u4")
    # Big-endian bytes sort like the numbers, so paths with a common beginning are neighbours.
    regimes = {key: regime_of(len(key) // 4, packing.thresholds) for key in owners}
    for key in sorted(owners, key=lambda key: (regimes[key], key)):
        path = np.frombuffer(key, dtype=">u4")
        shared = _shared(before, path)
        alike = rows and rows[-1].regime == regimes[key]
        if not alike or not _joins(rows[-1], len(before), len(path), shared, packing.longest):
            if rows:
                rows[-1].close(line)
            rows.append(Row(regime=regimes[key]))
            line, shared = [], 0
        line = rows[-1].grow(path.tolist(), shared, line)
        for i, k, request in owners[key]:
            tokens = (GREEDY,) * len(request.option) if request.greedy else request.option
            rows[-1].targets.append(Target(i, k, line[len(request.context) - 1 :], tokens))
        before = path
    if rows:
        rows[-1].close(line)
    return rows


def _bytes(tokens: tuple[int, ...]) -> bytes:
    return np.array(tokens, dtype=">u4").tobytes()


def _shared(a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]) -> int:
    """Length of the common beginning."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length


def _joins(row: Row, before: int, length: int, shared: int, longest: int | None) -> bool:
    """Whether a path joins the row: a quarter of it is there already, and attention stays cheap."""
    if longest is not None and max(before, length) > longest:
        return shared == before and shared == len(row.tokens)  # nothing branches
    return 4 * shared >= length and len(row.tokens) + length - shared <= max(_LONGEST, 2 * length)
