"""The stage: raw data sets in; pairs, general text and `split.json` out."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from fairgate.contracts.records import Overlap, Pair, Role, Split, write_record, write_records
from fairgate.support.digests import sha256_file
from fairgate.support.files import atomic_folder
from fairgate.support.log import log
from fairgate.support.params import Section, Seed
from fairgate.support.strict_yaml import read_yaml
from stages.calibrate.leakage import Leak, sentences, shared_sentences, shared_terms, texts_of
from stages.calibrate.stereoset import draw_pairs, ids_sharing, read_pairs, read_terms, split_terms
from stages.calibrate.texts import divide, read_passages


class Settings(Section):
    """How the calibration data are drawn."""

    seed: Seed = Field(description="seed of every draw")
    development_share: float = Field(
        gt=0, lt=1, description="share of StereoSet dev's target terms that is held out, to choose settings on"
    )
    pairs: int | None = Field(gt=0, description="stereotype pairs to draw; null: all")
    texts: int = Field(gt=0, description="passages of general text for calibration")
    development_texts: int = Field(ge=0, description="further passages, for perplexity while settings are chosen")
    training_texts: int = Field(ge=0, description="passages for learned rounding; those of `texts` come first")
    text_words: int = Field(gt=0, description="each passage is cut to this many words")


def read_roles() -> dict[str, Role]:
    """Set name -> role: of fetched sets from the manifest, of derived ones from roles.yaml."""
    stages = Path(__file__).parents[1]
    manifest, derived = read_yaml(stages / "fetch/manifest.yaml"), read_yaml(stages / "calibrate/roles.yaml")
    fetched = {name: entry["role"] for name, entry in manifest["sets"].items() if "role" in entry}
    return {name: Role(role) for name, role in {**fetched, **derived}.items()}


def calibrate(settings: Settings, raw: Path, out: Path) -> Split:
    """Write the calibration data. Nothing is written if anything leaks.

    Args:
        settings: section `calibrate` of params.yaml.
        raw: the data sets, as fetch wrote them.
        out: output folder.

    Raises:
        BadRecord: a StereoSet record is broken.
        Leak: a gate set shares a sentence with the calibration data, or StereoSet's dev and test
            share a target term.
        MissingFile: a data set is not there.
    """
    dev, general = raw / "stereoset_dev" / "dev.json", raw / "boolq_combined" / "combined.jsonl"
    pairs, identical = read_pairs(dev)
    context_pairs, identical_in_context = read_pairs(dev, "intersentence")
    if both := read_terms(dev) & read_terms(raw / "stereoset_test" / "test.json"):
        raise Leak(f"StereoSet dev and test share the target term {min(both)!r}", where=str(raw), remedy="use the original files")
    calibration_terms, development_terms = split_terms({pair.target for pair in pairs}, settings.development_share, settings.seed)
    usable, in_context = ([pair for pair in part if pair.target in set(calibration_terms)] for part in (pairs, context_pairs))
    chosen = draw_pairs(usable, settings.pairs, settings.seed)

    roles = read_roles()
    sets = {path.name: path for path in sorted(raw.iterdir()) if path.is_dir()}
    reported = {name: sentences(texts_of(path)) for name, path in sets.items() if roles.get(name) is Role.gate}
    development = {name: sentences(texts_of(sets[name])) for name in ("redditbias_valid", "winobias_dev") if name in sets}
    all_reported = set().union(*reported.values())
    passages, shared = read_passages(general, all_reported, settings.text_words, settings.seed)
    texts, held_out, training = divide(passages, settings.texts, settings.development_texts, settings.training_texts, where=str(general))
    sharing = ids_sharing(dev, "intersentence", all_reported)
    shared_in_context = [pair.pair_id for pair in in_context if pair.pair_id in sharing]
    in_context = [pair for pair in in_context if pair.pair_id not in sharing]

    ours = {
        "pairs": _pair_sentences(chosen),
        "context pairs": _pair_sentences(in_context),
        "text": sentences(text.text for text in texts),
        "training": sentences(text.text for text in training),
    }
    overlaps: list[Overlap] = []
    for name, theirs in reported.items():
        overlaps += [shared_sentences(part, mine, name, theirs, refused=True) for part, mine in ours.items()]
        overlaps.append(shared_terms("pairs", calibration_terms, name, _words(theirs)))
    for name, theirs in development.items():
        overlaps += [shared_sentences(part, ours[part], name, theirs, refused=False) for part in ("pairs", "context pairs")]

    with atomic_folder(out) as folder:
        write_records(folder / "pairs.jsonl", chosen)
        write_records(folder / "context_pairs.jsonl", in_context)
        write_records(folder / "text.jsonl", texts)
        write_records(folder / "training.jsonl", training)
        write_records(folder / "development.jsonl", held_out)
        split = Split(
            seed=settings.seed,
            roles=roles,
            calibration_terms=calibration_terms,
            development_terms=development_terms,
            dropped={
                "stereoset_dev: identical to an earlier pair": identical,
                "stereoset_dev with context: identical to an earlier pair": identical_in_context,
                "stereoset_dev with context: shares a sentence with a gate set": shared_in_context,
                "boolq_combined: shares a sentence with a gate set": shared,
            },
            overlaps=overlaps,
            pairs=len(chosen),
            context_pairs=len(in_context),
            texts=len(texts),
            training_texts=len(training),
            pairs_digest=sha256_file(folder / "pairs.jsonl"),
            context_pairs_digest=sha256_file(folder / "context_pairs.jsonl"),
            text_digest=sha256_file(folder / "text.jsonl"),
            training_digest=sha256_file(folder / "training.jsonl"),
        )
        write_record(folder / "split.json", split)
    _report(split, chosen, len(usable))
    return split


def _pair_sentences(pairs: list[Pair]) -> set[str]:
    return sentences(text for pair in pairs for text in (pair.stereotype, pair.anti_stereotype, pair.unrelated))


def _words(normalized: set[str]) -> set[str]:
    return {word for sentence in normalized for word in sentence.split()}


def _report(split: Split, pairs: list[Pair], usable: int) -> None:
    by_group = {group: sum(pair.group == group for pair in pairs) for group in sorted({pair.group for pair in pairs})}
    log.info("pairs: %d of %d usable (%s)", len(pairs), usable, ", ".join(f"{group} {count}" for group, count in by_group.items()))
    log.info("terms: %d calibration, %d held out for development", len(split.calibration_terms), len(split.development_terms))
    gate_sets = len({overlap.second for overlap in split.overlaps if overlap.refused})
    log.info("with context: %d pairs", split.context_pairs)
    log.info("text: %d passages, %d for training; no sentence shared with %d gate sets", split.texts, split.training_texts, gate_sets)
