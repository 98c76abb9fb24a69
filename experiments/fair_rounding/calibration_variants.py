"""Calibration folders made from one: the same records resampled, or made meaningless, as the
controls of an experiment need them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from fairgate.contracts.records import Pair, Text, read_records, write_records
from fairgate.support.errors import FairgateError, MissingFile

PAIRS, TEXTS = ("pairs.jsonl", "context_pairs.jsonl"), ("text.jsonl", "training.jsonl")
_WORDS = (5, 30)  # of a sentence that stands in a made-up pair
_NEAR = 8  # how far apart, by rank of length, its two sides may be
_PASSAGE = 32  # words that a line must have to be a passage


def bootstrap(folder: Path, out: Path, seed: int) -> None:
    """Pairs of target terms drawn with replacement within each bias type, whole terms at a time,
    the same terms in every file.
    """
    terms: dict[str, list[str]] = {}
    for pair in _pairs(folder, PAIRS[0]):
        known = terms.setdefault(pair.group, [])
        known += [] if pair.target in known else [pair.target]
    random = Random(seed)
    drawn = [(group, term, copy) for group in sorted(terms) for copy, term in enumerate(random.choices(terms[group], k=len(terms[group])))]

    def resampled(pairs: list[Pair], _: Random) -> list[Pair]:
        by_term: dict[tuple[str, str], list[Pair]] = {}
        for pair in pairs:
            by_term.setdefault((pair.group, pair.target), []).append(pair)
        return [
            pair.model_copy(update={"pair_id": f"{pair.pair_id}-{copy}"})
            for group, term, copy in drawn
            for pair in by_term.get((group, term), [])
        ]

    _rewrite(folder, out, seed, resampled)


def shuffled(folder: Path, out: Path, seed: int) -> None:
    """The two sides of every pair change places with probability 1/2: what is left is that there
    are pairs.
    """

    def swapped(pairs: list[Pair], random: Random) -> list[Pair]:
        changed = [{"stereotype": pair.anti_stereotype, "anti_stereotype": pair.stereotype} for pair in pairs]
        return [pair.model_copy(update=sides) if random.random() < 0.5 else pair for pair, sides in zip(pairs, changed, strict=True)]

    _rewrite(folder, out, seed, swapped)


def unrelated(folder: Path, out: Path, seed: int) -> None:
    """As many pairs of sentences of general text, alike in length alone; the unrelated side is a
    third one with its words shuffled.
    """
    texts = [text.text for name in TEXTS if (folder / name).is_file() for text in read_records(Text, folder / name)]
    distinct = {sentence for text in texts for sentence in re.split(r"(?<=[.!?])\s+", text)}
    sentences = sorted((s for s in distinct if _WORDS[0] <= len(s.split()) <= _WORDS[1]), key=lambda s: (len(s.split()), s))
    if len(sentences) < 3:
        raise FairgateError(
            f"{len(sentences)} sentences of {_WORDS[0]} to {_WORDS[1]} words", where=str(folder), remedy="more general text"
        )

    def made_up(pairs: list[Pair], random: Random) -> list[Pair]:
        changed = []
        for pair in pairs:
            start = random.randrange(len(sentences))
            near = [i for i in range(max(0, start - _NEAR), min(len(sentences), start + _NEAR + 1)) if i != start]
            partner, third = random.sample(near, 2)
            words = sentences[third].split()
            random.shuffle(words)
            sides = {"stereotype": sentences[start], "anti_stereotype": sentences[partner], "unrelated": " ".join(words)}
            changed.append(pair.model_copy(update=sides))
        return changed

    _rewrite(folder, out, seed, made_up)


def of_text(folder: Path, out: Path, path: Path, seed: int) -> None:
    """The general text replaced by passages of a file, one a line; as many and as long as there
    were, or as many as there are.

    Words that the file holds as `<unk>` are left out.
    """
    if not path.is_file():
        raise MissingFile("no text to calibrate on", where=str(path), remedy="give one with --text")
    lines = [[word for word in line.split() if word != "<unk>"] for line in path.read_text(encoding="utf-8").splitlines()]
    passages = [words for words in lines if len(words) >= _PASSAGE]
    if not passages:
        raise FairgateError(f"no line of {_PASSAGE} words or more", where=str(path), remedy="give another file")
    Random(seed).shuffle(passages)
    _copy(folder, out)
    for name in TEXTS:
        if (folder / name).is_file():
            before = read_records(Text, folder / name)
            longest = max(len(text.text.split()) for text in before)
            chosen = [" ".join(words[:longest]) for words in passages[: len(before)]]
            write_records(out / name, [Text(text_id=f"line-{n}", text=text) for n, text in enumerate(chosen)])


VARIANTS: dict[str, Callable[[Path, Path, int], None]] = {"bootstrap": bootstrap, "shuffled": shuffled, "unrelated": unrelated}


def _rewrite(folder: Path, out: Path, seed: int, change: Callable[[list[Pair], Random], Sequence[Pair]]) -> None:
    _copy(folder, out)
    for name in PAIRS:
        if (folder / name).is_file():
            write_records(out / name, list(change(_pairs(folder, name), Random(f"{seed} {name}"))))


def _copy(folder: Path, out: Path) -> None:
    shutil.copytree(folder, out, dirs_exist_ok=True)


def _pairs(folder: Path, name: str) -> list[Pair]:
    return read_records(Pair, folder / name)
