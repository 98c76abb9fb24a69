"""Calibration data: pairs and general text, encoded and cut into batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairgate.contracts.records import Pair, Text, read_records
from fairgate.support.errors import BadRecord
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import Batch, EncodedPair, encode_pairs, encode_texts, pair_batches, start_notes, text_batches
from stages.quantize.methods.base import Inputs
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe
from stages.quantize.methods.shared.reader import Reader, read_reader


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

    Texts are cut at the model's positions, pairs beyond them are left out.

    Raises:
        BadRecord: a record that cannot be used, or no token is left to calibrate with.
    """
    pairs, texts = read_records(Pair, folder / "pairs.jsonl"), read_records(Text, folder / "text.jsonl")
    reader = read_reader(base)
    aligned, written = encode_pairs(pairs, reader.tokenizer, alignment, group_by), encode_texts(texts, reader.tokenizer)
    encoded = [pair for pair in aligned if reader.holds(pair.a) and reader.holds(pair.b)]
    groups = {group: index for index, group in enumerate(sorted({pair.group for pair in encoded}))}
    rows = [ids[: reader.context] for ids in written]

    def cut(tokens: int) -> Calibration:
        of_pairs = pair_batches(encoded, alignment, reader.pad, tokens, groups, reader.thresholds)
        of_text = text_batches(rows, reader.pad, tokens, reader.thresholds)
        return Calibration(select(recipe, list(of_pairs), list(of_text)), len(groups), cut)

    data = cut(batch_tokens)
    if not data.batches:
        what = f"no token to calibrate with: {len(encoded)} of {len(pairs)} pairs and {len(rows)} of {len(texts)} texts can be used"
        raise BadRecord(what, where=str(folder), remedy=f"`calibration: {recipe.calibration}` needs others: run `dvc repro calibrate`")
    notes = start_notes(reader.tokenizer)
    if len(aligned) < len(pairs):
        notes.append(f"alignment {alignment.value} kept {len(aligned)} of {len(pairs)} pairs")
    notes += _length_notes(reader, aligned, written)
    if len(written) < len(texts):
        notes.append(f"{len(texts) - len(written)} of {len(texts)} texts have no token, and were left out")
    return Inputs(
        data,
        pairs=sum(batch.pairs for batch in data.batches),
        texts=sum(batch.sentences for batch in data.batches if batch.M is None),
        tokens=sum(int(batch.counts.sum()) for batch in data.batches),
        notes=notes,
    )


def _length_notes(reader: Reader, pairs: Sequence[EncodedPair], texts: Sequence[list[int]]) -> list[str]:
    """What became of pairs and texts beyond the model's positions."""
    notes, context = [], f"the {reader.context} tokens that the model has positions for"
    if long := sum(not (reader.holds(pair.a) and reader.holds(pair.b)) for pair in pairs):
        notes.append(f"{long} of {len(pairs)} pairs exceed {context}, and were left out")
    if long := sum(not reader.holds(text) for text in texts):
        notes.append(f"{long} of {len(texts)} texts exceed {context}, and were cut there")
    return notes


def select(recipe: CalibratedRecipe, pairs: Sequence[Batch], texts: Sequence[Batch]) -> list[Batch]:
    """The batches that a recipe calibrates on."""
    return [*(pairs if recipe.calibration in ("mixed", "pairs") else ()), *(texts if recipe.calibration in ("mixed", "text") else ())]
