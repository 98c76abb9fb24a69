"""What a step of learned rounding sees: passages and triples, drawn by its number alone, so that
any step can be drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Generic, TypeVar

import torch
from torch import Tensor

from fairgate.contracts.records import Pair, Text, read_records
from fairgate.support.errors import BadRecord
from fairgate.support.tokens import Tokenizer, encode
from stages.quantize.core.pairs import encode_texts, start_notes
from stages.quantize.methods.base import Inputs
from stages.quantize.methods.shared.reader import read_reader

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """Right-padded sentences: ids [B, L], lengths [B]. A causal model needs no mask for what comes
    after the end.
    """

    ids: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        return Rows(self.ids.to(device, non_blocking=True), self.lengths.to(device, non_blocking=True))


@dataclass(frozen=True)
class Slots:
    """Tokens of one batch with its pads: of passages, of triples."""

    texts: int = 0
    triples: int = 0


@dataclass(frozen=True)
class Triple:
    """The sentences of a pair as token ids: stereotype, anti-stereotype, unrelated."""

    group: str
    sides: tuple[list[int], list[int], list[int]]


class Rotation(Generic[T]):
    """Goes through `items` again and again, each time in a new order that depends on the seed
    alone.
    """

    def __init__(self, items: Sequence[T], seed: str) -> None:
        self._items, self._seed = items, seed
        self._orders: dict[int, list[int]] = {}

    def take(self, step: int, count: int) -> list[T]:
        """The `count` items of step `step`."""
        return [self._item(number) for number in range(step * count, (step + 1) * count)]

    def _item(self, number: int) -> T:
        epoch, place = divmod(number, len(self._items))
        if epoch not in self._orders:
            order = list(range(len(self._items)))
            Random(f"{self._seed}/{epoch}").shuffle(order)
            self._orders[epoch] = order
        return self._items[self._orders[epoch][place]]


def encode_triples(pairs: Sequence[Pair], tokenizer: Tokenizer) -> list[Triple]:
    """Token ids of every pair's sentences, each alone, with the start token of `encode_pairs`."""
    texts = [text for pair in pairs for text in (pair.stereotype, pair.anti_stereotype, pair.unrelated)]
    ids = encode(tokenizer, texts, start=True)
    return [Triple(pair.group, sides) for pair, sides in zip(pairs, zip(ids[::3], ids[1::3], ids[2::3], strict=True), strict=True)]


def packed(texts: Sequence[Sequence[int]], width: int) -> list[list[int]]:
    """All texts behind one another, cut into rows of `width` tokens; what is left over makes a row
    only where it is the only one.
    """
    stream = [token for text in texts for token in text]
    return [stream[at : at + width] for at in range(0, max(len(stream) - width, 0) + 1, width)]


def rows(sentences: Sequence[Sequence[int]], pad: int, width: int | None = None) -> Rows:
    """One right-padded batch, as wide as its longest sentence or as `width`."""
    width = width or max(map(len, sentences))
    ids = torch.tensor([[*sentence, *[pad] * (width - len(sentence))] for sentence in sentences])
    return Rows(ids, torch.tensor([len(sentence) for sentence in sentences]))


def short(triples: Sequence[Triple], limit: int) -> list[Triple]:
    """Those whose sentences all have at most `limit` tokens. Raises: BadRecord where a group has
    none.
    """
    kept = [triple for triple in triples if max(map(len, triple.sides)) <= limit]
    if gone := {triple.group for triple in triples} - {triple.group for triple in kept}:
        what = f"no pair of {', '.join(sorted(gone))} has at most {limit} tokens"
        raise BadRecord(what, where="pair_tokens", remedy="allow more, as far as the model has positions")
    return kept


class Draw:
    """Passages and triples of every step.

    Args:
        texts: rows of token ids.
        triples: of the pairs; none where parity is not asked for.
        pad: any token.
    """

    def __init__(self, texts: Sequence[list[int]], triples: Sequence[Triple], pad: int, seed: int) -> None:
        self.pad = pad
        self.groups = sorted({triple.group for triple in triples})
        self._widest = max((len(side) for triple in triples for side in triple.sides), default=0)
        self._texts = Rotation(texts, f"{seed}/text")
        self._triples = [Rotation([t for t in triples if t.group == group], f"{seed}/{group}") for group in self.groups]

    def texts(self, step: int, count: int) -> Rows:
        """`count` rows of text."""
        return rows(self._texts.take(step, count), self.pad)

    def triples(self, step: int, count: int, alike: bool = False) -> tuple[Rows, Tensor]:
        """About `count` triples, as many of each group.

        Args:
            alike: every step's batch has the same shape.
        Returns:
            Rows of all stereotypes, then anti-stereotypes, then unrelated; and the groups [P].
        """
        per_group = max(1, count // len(self.groups))
        drawn = [rotation.take(step, per_group) for rotation in self._triples]
        sides = [triple.sides[side] for side in range(3) for part in drawn for triple in part]
        return rows(sides, self.pad, self._widest if alike else None), torch.arange(len(self.groups)).repeat_interleave(per_group)

    def slots(self, texts: int, triples: int) -> Slots:
        """Of the batches of a step, where those of triples are as wide as the widest."""
        return Slots(self.texts(0, texts).ids.numel(), self.triples(0, triples, alike=True)[0].ids.numel() if self.groups else 0)


def read_draw(
    base: Path, text_file: Path, pair_files: Sequence[Path], seed: int, text_tokens: int, pair_tokens: int | None
) -> Inputs[Draw]:
    """What the steps see, with the tokenizer of `base`. No row or sentence exceeds the model's
    positions, or the length at which their factors change: a batch would mix them.

    Args:
        pair_files: of the pairs; none where parity is not asked for.
        text_tokens: of a row of text.
        pair_tokens: triples with a longer sentence are left out; None keeps all of them.
    Raises:
        BadRecord: no text, or a sentence without a token to predict.
    """
    reader = read_reader(base)
    texts = encode_texts(read_records(Text, text_file), reader.tokenizer)
    pairs = [pair for path in pair_files for pair in read_records(Pair, path)]
    triples = encode_triples(pairs, reader.tokenizer)
    for pair, triple in zip(pairs, triples, strict=True):
        if min(map(len, triple.sides)) < 2:
            raise BadRecord("a sentence of fewer than two tokens has no likelihood", where=f"pair {pair.pair_id!r}", remedy="drop the pair")
    notes = start_notes(reader.tokenizer)
    most = [limit for limit in (pair_tokens, reader.most) if limit is not None]
    if most and len(few := short(triples, min(most))) < len(triples):
        dropped = len(triples) - len(few)
        notes.append(f"{dropped} of {len(triples)} pairs have a sentence of more than {min(most)} tokens, and were left out")
        triples = few
    if reader.most is not None and reader.most < text_tokens:
        notes.append(f"rows of text have {reader.most} tokens, as many as the model reads alike, and not {text_tokens}")
        text_tokens = reader.most
    if not texts:
        raise BadRecord("no text to learn from", where=str(text_file), remedy="set `calibrate.training_texts` above 0, and calibrate anew")
    tokens = sum(map(len, texts)) + sum(len(side) for triple in triples for side in triple.sides)
    draw = Draw(packed(texts, text_tokens), triples, reader.pad, seed)
    return Inputs(draw, pairs=len(triples), texts=len(texts), tokens=tokens, notes=notes)
