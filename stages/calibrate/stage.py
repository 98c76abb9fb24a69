"""The stage: raw sets in, `pairs.jsonl`, `text.jsonl` and `split.json` out."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from random import Random

import yaml
from pydantic import Field

from stages.calibrate.leakage import Leak, normalise, sentences, shared_sentences, shared_terms, texts_of
from stages.calibrate.stereoset import draw, read_pairs, split_terms
from stages.common.cli import log
from stages.common.digests import sha256_file
from stages.common.errors import FairgateError, MissingFile
from stages.common.files import atomic_folder
from stages.common.params import Section
from stages.common.records import Overlap, Pair, Role, Split, Text, write_record, write_records


class Settings(Section):
    """Section `calibrate`.

    pairs, texts: how many to draw (null: all pairs); development_texts: further passages, for perplexity while settings are chosen;
    text_words: words kept of each passage.
    """

    seed: int
    development_share: float = Field(gt=0, lt=1)
    pairs: int | None = Field(gt=0)
    texts: int = Field(gt=0)
    development_texts: int = Field(ge=0)
    text_words: int = Field(gt=0)


def roles() -> dict[str, Role]:
    """Set name -> role, from roles.yaml."""
    table = yaml.safe_load(files("stages.calibrate").joinpath("roles.yaml").read_text(encoding="utf-8"))
    return {name: Role(role) for role, names in table.items() for name in names}


def calibrate(settings: Settings, raw: Path, out: Path) -> Split:
    """Write the calibration data; nothing is written if anything leaks.

    Raises:
        BadRecord: a broken StereoSet record. Leak: a normalised sentence shared between calibration and gate sets, or a target term
        shared between StereoSet's dev and test. MissingFile: a raw set that is not there.
    """
    pairs, identical = read_pairs(raw / "stereoset_dev" / "dev.json")
    test_pairs, _ = read_pairs(raw / "stereoset_test" / "test.json")
    ours, theirs = ({pair.target for pair in part} for part in (pairs, test_pairs))
    if both := ours & theirs:
        raise Leak(f"StereoSet dev and test share the target term {min(both)!r}", where=str(raw), remedy="use the original files")
    calibration_terms, development_terms = split_terms(ours, settings.development_share, settings.seed)
    usable = [pair for pair in pairs if pair.target in set(calibration_terms)]
    chosen = draw(usable, settings.pairs, settings.seed)

    sets = {path.name: path for path in sorted(raw.iterdir()) if path.is_dir()}
    reported = {name: sentences(texts_of(path)) for name, path in sets.items() if roles().get(name) is Role.gate}
    development = {name: sentences(texts_of(sets[name])) for name in ("redditbias_valid", "winobias_dev") if name in sets}
    texts, held_out, shared = _texts(settings, raw / "boolq_combined" / "combined.jsonl", set().union(*reported.values()))

    pair_sentences = sentences(text for pair in chosen for text in (pair.stereotype, pair.anti_stereotype, pair.unrelated))
    text_sentences = sentences(text.text for text in texts)
    overlaps: list[Overlap] = []
    for name, found in reported.items():
        overlaps.append(shared_sentences("pairs", pair_sentences, name, found, refused=True))
        overlaps.append(shared_sentences("text", text_sentences, name, found, refused=True))
        overlaps.append(shared_terms("pairs", calibration_terms, name, _words(found)))
    for name, found in development.items():
        overlaps.append(shared_sentences("pairs", pair_sentences, name, found, refused=False))

    with atomic_folder(out) as folder:
        write_records(folder / "pairs.jsonl", chosen)
        write_records(folder / "text.jsonl", texts)
        write_records(folder / "development.jsonl", held_out)
        split = Split(
            seed=settings.seed,
            roles=roles(),
            calibration_terms=calibration_terms,
            development_terms=development_terms,
            dropped={"stereoset_dev: identical to an earlier pair": identical, "boolq_combined: shares a sentence with a gate set": shared},
            overlaps=overlaps,
            pairs=len(chosen),
            texts=len(texts),
            pairs_digest=sha256_file(folder / "pairs.jsonl"),
            text_digest=sha256_file(folder / "text.jsonl"),
        )
        write_record(folder / "split.json", split)
    _report(split, chosen, len(usable))
    return split


def _texts(settings: Settings, path: Path, reported: set[str]) -> tuple[list[Text], list[Text], list[str]]:
    """General text for calibration and for development: distinct passages that share no normalised sentence with any gate set.

    Development passages share none with the calibration text either. Third: the ids of passages left out because of a gate set.
    """
    if not path.is_file():
        raise MissingFile("no general text", where=str(path), remedy="run `dvc repro fetch`")
    seen: set[str] = set()
    clean: list[tuple[str, str]] = []
    shared: list[str] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            passage = json.loads(line)["passage"].strip()
            key = normalise(passage)
            if key in seen:
                continue
            seen.add(key)
            if sentences([passage]) & reported:
                shared.append(f"boolq-{number}")
            else:
                clean.append((f"boolq-{number}", passage))
    wanted = settings.texts + settings.development_texts
    if len(clean) < wanted:
        remedy = "ask for fewer `texts`, or supply more general text"
        raise FairgateError(f"{len(clean)} passages share no sentence with a gate set, {wanted} wanted", where=str(path), remedy=remedy)
    Random(settings.seed).shuffle(clean)
    cut = [Text(text_id=name, text=" ".join(passage.split()[: settings.text_words])) for name, passage in clean]
    texts = cut[: settings.texts]
    ours = sentences(text.text for text in texts)
    held_out = [text for text in cut[settings.texts :] if sentences([text.text]).isdisjoint(ours)]
    return texts, held_out[: settings.development_texts], shared


def _words(found: set[str]) -> set[str]:
    return {word for sentence in found for word in sentence.split()}


def _report(split: Split, pairs: list[Pair], usable: int) -> None:
    by_group = {group: sum(pair.group == group for pair in pairs) for group in sorted({pair.group for pair in pairs})}
    log.info("pairs: %d of %d usable (%s)", len(pairs), usable, ", ".join(f"{group} {count}" for group, count in by_group.items()))
    log.info("terms: %d calibration, %d held out for development", len(split.calibration_terms), len(split.development_terms))
    gate_sets = len({overlap.second for overlap in split.overlaps if overlap.refused})
    log.info("text: %d passages; no sentence shared with %d gate sets", split.texts, gate_sets)
