"""Passages of general text, shuffled once and divided.

The parts are for calibration, for choosing settings (development), and for learned rounding.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from fairgate.contracts.records import Text
from fairgate.support.errors import BadRecord, FairgateError
from fairgate.support.files import read_jsonl
from stages.calibrate.leakage import normalize_sentence, sentences


class Passages(NamedTuple):
    """The passages by purpose.

    `training` begins with `calibration`. `development` shares no normalized sentence with either.
    """

    calibration: list[Text]
    development: list[Text]
    training: list[Text]


def read_passages(path: Path, reported: set[str], words: int, seed: int) -> tuple[list[Text], list[str]]:
    """Distinct passages in a seeded order, and the ids of those left out.

    Args:
        path: JSON lines with the key `passage`.
        reported: normalized sentences of the gate sets. A passage with one of them is left out.
        words: each passage is cut to this many words.
        seed: of the order.

    Raises:
        MissingFile: no file at `path`.
        BadRecord: a line is no JSON object with a passage.
    """
    seen: set[str] = set()
    clean: list[Text] = []
    shared: list[str] = []
    for number, line in enumerate(read_jsonl(path, written_by="fetch"), 1):
        passage = _passage(line, f"{path}:{number}").strip()
        key = normalize_sentence(passage)
        if key in seen:
            continue
        seen.add(key)
        text = Text(text_id=f"boolq-{number}", text=" ".join(passage.split()[:words]))
        # Whole, for what the cut tears apart; cut, for the sentence it ends in.
        if sentences([passage, text.text]) & reported:
            shared.append(text.text_id)
        else:
            clean.append(text)
    Random(seed).shuffle(clean)
    return clean, shared


def _passage(line: Any, where: str) -> str:
    passage = line.get("passage") if isinstance(line, dict) else None
    if not isinstance(passage, str):
        raise BadRecord("no text under the key 'passage'", where=where, remedy="run `dvc repro fetch` to get the file again")
    return passage


def divide(passages: list[Text], texts: int, development_texts: int, training_texts: int, *, where: str) -> Passages:
    """Divide the passages by purpose.

    Args:
        passages: in the order of drawing.
        texts: how many the calibration takes, from the first.
        development_texts: how many are for choosing settings.
        training_texts: how many learned rounding takes, those of the calibration among them.
        where: the file, for the message.

    Raises:
        FairgateError: too few passages for one of the three; the message names the parameter.
    """
    calibration = passages[:texts]
    development = _apart(passages[texts:], calibration)[:development_texts]
    training = [*calibration, *_apart(passages[texts:], development)][:training_texts]
    divided = Passages(calibration, development, training)
    for name, part, number in zip(
        ("texts", "development_texts", "training_texts"), divided, (texts, development_texts, training_texts), strict=True
    ):
        if len(part) < number:
            what = f"{len(part)} passages for `{name}`, {number} wanted: of {len(passages)} that share no sentence with a gate set"
            raise FairgateError(what, where=where, remedy=f"ask for fewer `calibrate.{name}`, or supply more general text")
    return divided


def _apart(passages: list[Text], taken: list[Text]) -> list[Text]:
    """The passages that are not in `taken` and share no normalized sentence with any of it."""
    ids = {text.text_id for text in taken}  # a passage too short to hold a sentence is still itself
    used = sentences(text.text for text in taken)
    return [text for text in passages if text.text_id not in ids and sentences([text.text]).isdisjoint(used)]
