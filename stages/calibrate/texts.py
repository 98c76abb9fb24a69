"""Passages of general text, shuffled once and divided: calibration, development, learned rounding."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import NamedTuple

from fairgate.contracts.records import Text
from fairgate.support.errors import FairgateError, MissingFile
from stages.calibrate.leakage import normalise, sentences


class Passages(NamedTuple):
    """`training` begins with `calibration`; `development` shares no normalised sentence with either."""

    calibration: list[Text]
    development: list[Text]
    training: list[Text]


def read_passages(path: Path, reported: set[str], words: int, seed: int) -> tuple[list[Text], list[str]]:
    """Distinct passages in a seeded order, cut to `words`, and the ids of those left out for a normalised sentence in `reported`.

    Raises:
        MissingFile: no file at `path`.
    """
    if not path.is_file():
        raise MissingFile("no general text", where=str(path), remedy="run `dvc repro fetch`")
    seen: set[str] = set()
    clean: list[Text] = []
    shared: list[str] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            passage = json.loads(line)["passage"].strip()
            key = normalise(passage)
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


def divide(passages: list[Text], texts: int, development_texts: int, training_texts: int, *, where: str) -> Passages:
    """Calibration takes the first `texts` passages; training has `training_texts` in all.

    Raises:
        FairgateError: too few passages for one of the three; names its parameter.
    """
    calibration = passages[:texts]
    development = _apart(passages[texts:], calibration)[:development_texts]
    training = [*calibration, *_apart(passages[texts:], development)][:training_texts]
    divided = Passages(calibration, development, training)
    for name, part, wanted in zip(
        ("texts", "development_texts", "training_texts"), divided, (texts, development_texts, training_texts), strict=True
    ):
        if len(part) < wanted:
            what = f"{len(part)} passages for `{name}`, {wanted} wanted: of {len(passages)} that share no sentence with a gate set"
            raise FairgateError(what, where=where, remedy=f"ask for fewer `calibrate.{name}`, or supply more general text")
    return divided


def _apart(passages: list[Text], others: list[Text]) -> list[Text]:
    """The passages that are not among `others` and share no normalised sentence with them."""
    names = {text.text_id for text in others}  # a passage too short to hold a sentence is still itself
    taken = sentences(text.text for text in others)
    return [text for text in passages if text.text_id not in names and sentences([text.text]).isdisjoint(taken)]
