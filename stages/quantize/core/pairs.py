"""From pairs and texts to batches of token ids, masks, and the sparse matrix M of differences.

A batch of pairs has the layout [pairs, 2, L], flattened to [2 pairs, L]: rows 2p and 2p + 1 are the
two sides of pair p. The alignment is data and not a matter of shapes: M has one row per difference
over the flattened tokens, so that D = M X, and pads never enter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from fairgate.contracts.records import Pair, Text
from fairgate.support.errors import BadRecord
from fairgate.support.positions import regime_of
from fairgate.support.tokens import Tokenizer, encode, own_tokens, start_prefix
from stages.quantize.core.names import Alignment

T = TypeVar("T")


@dataclass(frozen=True)
class EncodedPair:
    """A pair as token ids. `group` is what the group-mean constraint averages over."""

    pair_id: str
    group: str
    a: list[int]
    b: list[int]


@dataclass(frozen=True)
class Batch:
    """Sentences as one rectangle of token slots.

    ids: [rows, L] int64, padded on the right.
    mask: [rows, L] bool, tokens that attend.
    counts: [rows, L] bool, tokens that enter H.
    sentences: number of rows.
    M: [m, rows * L] sparse float32, one row per difference. None means general text.
    groups: [m] int64, the group of each row of M. None means general text.
    pairs: their number; 0 for general text.
    """

    ids: Tensor
    mask: Tensor
    counts: Tensor
    sentences: int
    M: Tensor | None = None
    groups: Tensor | None = None
    pairs: int = 0

    @cached_property
    def all_counted(self) -> bool:
        """Whether every token slot enters H."""
        return bool(self.counts.all())

    @cached_property
    def counted(self) -> Tensor:
        """Indices of the token slots that enter H."""
        return self.counts.reshape(-1).nonzero()[:, 0]

    @cached_property
    def compressed(self) -> tuple[Tensor, Tensor, Tensor]:
        """M by rows: the start of each row's entries [m + 1], their columns and their weights."""
        assert self.M is not None
        M = self.M.coalesce()
        rows, columns = M.indices()
        starts = torch.zeros(M.shape[0] + 1, dtype=torch.int64, device=M.device)
        torch.cumsum(torch.bincount(rows, minlength=M.shape[0]), 0, out=starts[1:])
        return starts, columns.contiguous(), M.values()

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on the device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


def start_notes(tokenizer: Any) -> list[str]:
    """The record's notes on a start token that is added, and on tokens that are left out."""
    _, appended = own_tokens(tokenizer)
    added = [
        f"the tokenizer adds no start token; {tokenizer.convert_ids_to_tokens(start)!r} was put in front of every sentence"
        for start in start_prefix(tokenizer)
    ]
    return added + [f"the tokenizer appends {tokenizer.convert_ids_to_tokens(token)!r}, which was left out" for token in appended]


def encode_pairs(pairs: Sequence[Pair], tokenizer: Tokenizer, alignment: Alignment, group_by: str) -> list[EncodedPair]:
    """Token ids of both sides of every pair. Each sentence stands alone, nothing is truncated.

    Args:
        pairs: the records. Pairs of unequal token length are dropped under `equal-length`.
        tokenizer: of the model.
        alignment: decides which pairs stay.
        group_by: `bias_type` or `target`, which becomes the group of a pair.
    Raises:
        BadRecord: a pair id occurs twice, a side is empty, both sides have the same tokens, or no
            pair is left. The message names the pair.
    """
    texts = [text for pair in pairs for text in (pair.stereotype, pair.anti_stereotype)]
    empty, *sides = encode(tokenizer, ["", *texts], start=True)
    seen: set[str] = set()
    encoded = []
    for pair, a, b in zip(pairs, sides[::2], sides[1::2], strict=True):
        where = f"pair {pair.pair_id!r}"
        if pair.pair_id in seen:
            raise BadRecord("the pair id occurs twice", where=where, remedy="run `dvc repro calibrate` to write the pairs again")
        seen.add(pair.pair_id)
        if a == b or empty in (a, b):
            raise BadRecord("a side is empty or both sides have the same tokens", where=where, remedy="drop the pair")
        if alignment is Alignment.equal_length and len(a) != len(b):
            continue
        encoded.append(EncodedPair(pair.pair_id, pair.group if group_by == "bias_type" else pair.target, a, b))
    if not encoded:
        raise BadRecord(f"no pair is left under alignment {alignment.value!r}", where="pairs.jsonl", remedy="choose another alignment")
    return encoded


def encode_texts(texts: Sequence[Text], tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of every text, with the same start token as the pairs. Texts without a token of
    their own are left out.
    """
    empty, *encoded = encode(tokenizer, ["", *(text.text for text in texts)], start=True)
    return [ids for ids in encoded if ids != empty]


DifferenceRow = list[tuple[int, int, float]]  # one difference: (side, position, weight)


def difference_rows(a: list[int], b: list[int], alignment: Alignment) -> list[DifferenceRow]:
    """Rows of M for one pair, each a list of (side, position, weight).

    `aligned`: let p be the length of the longest common prefix. Its rows would be zero in a causal
    model, so they are left out. Let q be the length of the longest common suffix, with
    q <= min(len) - p. There is one row per position of the suffix, and one for the means of the
    differing spans if neither is empty.
    """
    la, lb = len(a), len(b)
    if alignment in (Alignment.positional, Alignment.equal_length, Alignment.positional_padded):
        stop = max(la, lb) if alignment is Alignment.positional_padded else min(la, lb)
        return [[(0, j, 1.0), (1, j, -1.0)] for j in range(stop)]
    if alignment is Alignment.pooled_mean:
        return [_mean(0, 0, la, 1.0) + _mean(1, 0, lb, -1.0)]
    if alignment is Alignment.pooled_last:
        return [[(0, la - 1, 1.0), (1, lb - 1, -1.0)]]
    p = 0
    while p < min(la, lb) and a[p] == b[p]:
        p += 1
    if alignment is Alignment.group_mean:
        # One sentence may be a prefix of the other; then the shared part is all that side has.
        pa, pb = min(p, la - 1), min(p, lb - 1)
        return [_mean(0, pa, la, 1.0) + _mean(1, pb, lb, -1.0)]
    q = 0
    while q < min(la, lb) - p and a[la - 1 - q] == b[lb - 1 - q]:
        q += 1
    rows: list[DifferenceRow] = []
    if p < la - q and p < lb - q:
        rows.append(_mean(0, p, la - q, 1.0) + _mean(1, p, lb - q, -1.0))
    rows += [[(0, la - q + j, 1.0), (1, lb - q + j, -1.0)] for j in range(q)]
    return rows


def _mean(side: int, start: int, stop: int, sign: float) -> DifferenceRow:
    return [(side, j, sign / (stop - start)) for j in range(start, stop)]


def pair_batches(
    pairs: Sequence[EncodedPair],
    alignment: Alignment,
    pad: int,
    batch_tokens: int,
    groups: dict[str, int],
    thresholds: Sequence[int] = (),
) -> Iterator[Batch]:
    """Batches of whole pairs of similar length. The longer side says which regime a pair is of.

    Args:
        pairs: both sides as token ids.
        alignment: which positions are compared.
        pad: token id that fills up short rows.
        batch_tokens: the most token slots of a batch; a single pair may exceed it.
        groups: the index of each group by name.
        thresholds: lengths at which the model's factors of positions change; no batch mixes them.
    """
    padded = alignment is Alignment.positional_padded
    for part in _buckets(pairs, lambda pair: max(len(pair.a), len(pair.b)), batch_tokens // 2, thresholds):
        length = max(max(len(pair.a), len(pair.b)) for pair in part)
        sides = [side for pair in part for side in (pair.a, pair.b)]
        ids, mask = _pad(sides, length, pad)
        counts = mask.clone()
        rows, group = [], []
        for index, pair in enumerate(part):
            if padded:
                counts[2 * index : 2 * index + 2, : max(len(pair.a), len(pair.b))] = True
            for row in difference_rows(pair.a, pair.b, alignment):
                rows.append([((2 * index + side) * length + position, weight) for side, position, weight in row])
                group.append(groups[pair.group])
        at = torch.tensor([[r, column] for r, row in enumerate(rows) for column, _ in row], dtype=torch.int64).view(-1, 2).T
        weights = torch.tensor([weight for row in rows for _, weight in row])
        M = torch.sparse_coo_tensor(at, weights, (len(rows), len(sides) * length), check_invariants=True).coalesce()
        yield Batch(ids, mask, counts, len(sides), M, torch.tensor(group, dtype=torch.int64), len(part))


def text_batches(texts: Sequence[list[int]], pad: int, batch_tokens: int, thresholds: Sequence[int] = ()) -> Iterator[Batch]:
    """Batches of texts of similar length, of at most `batch_tokens` token slots or one text, and of
    one regime (see `pair_batches`).
    """
    for part in _buckets(texts, len, batch_tokens, thresholds):
        ids, mask = _pad(part, max(map(len, part)), pad)
        yield Batch(ids, mask, mask, len(part))


def _buckets(items: Sequence[T], length: Callable[[T], int], slots: int, thresholds: Sequence[int]) -> Iterator[list[T]]:
    part: list[T] = []
    for item in sorted(items, key=length):
        mixed = part and regime_of(length(part[0]), thresholds) != regime_of(length(item), thresholds)
        if mixed or (part and (len(part) + 1) * length(item) > slots):
            yield part
            part = []
        part.append(item)
    if part:
        yield part


def _pad(rows: Sequence[list[int]], length: int, pad: int) -> tuple[Tensor, Tensor]:
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = True
    return ids, mask
