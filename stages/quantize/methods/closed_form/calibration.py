"""Calibration data: pairs and general text, encoded and cut into batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from fairgate.contracts.records import Pair, Text, read_records
from fairgate.support.special_tokens import pad_token
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import Batch, encode_pairs, encode_texts, pair_batches, start_notes, text_batches
from stages.quantize.methods.base import Inputs
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe


@dataclass(frozen=True)
class Calibration:
    """What a calibration pass runs on.

    Args:
        batches: of pairs, then of text.
        n_groups: the number of groups that the group-mean constraint averages over.
        rebatch: the same sentences in batches of at most so many token slots. None means the
            batches stay as they are.
    """

    batches: list[Batch]
    n_groups: int
    rebatch: Callable[[int], Calibration] | None = None


def read_calibration(
    recipe: CalibratedRecipe,
    base: Path,
    folder: Path,
    batch_tokens: int,
    alignment: Alignment = Alignment.aligned,
    group_by: str = "bias_type",
) -> Inputs[Calibration]:
    """The batches of a recipe, from pairs.jsonl and text.jsonl in `folder`, with the tokenizer of
    `base`.
    """
    pairs, texts = read_records(Pair, folder / "pairs.jsonl"), read_records(Text, folder / "text.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    encoded = encode_pairs(pairs, tokenizer, alignment, group_by)
    groups = {group: index for index, group in enumerate(sorted({pair.group for pair in encoded}))}
    rows = encode_texts(texts, tokenizer)
    pad = pad_token(tokenizer)

    def cut(tokens: int) -> Calibration:
        of_pairs, of_text = pair_batches(encoded, alignment, pad, tokens, groups), text_batches(rows, pad, tokens)
        return Calibration(select(recipe, list(of_pairs), list(of_text)), len(groups), cut)

    data = cut(batch_tokens)
    notes = start_notes(tokenizer)
    if len(encoded) < len(pairs):
        notes.append(f"alignment {alignment.value} kept {len(encoded)} of {len(pairs)} pairs")
    return Inputs(
        data,
        pairs=sum(batch.pairs for batch in data.batches),
        texts=sum(batch.sentences for batch in data.batches if batch.M is None),
        tokens=sum(int(batch.counts.sum()) for batch in data.batches),
        notes=notes,
    )


def select(recipe: CalibratedRecipe, pairs: Sequence[Batch], texts: Sequence[Batch]) -> list[Batch]:
    """The batches that a recipe calibrates on."""
    return [*(pairs if recipe.calibration in ("mixed", "pairs") else ()), *(texts if recipe.calibration in ("mixed", "text") else ())]
