"""A tiny Llama with calibration data for whole-stage tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.contracts.records import Pair, Text, read_records, write_records
from tests.tiny import SENTENCES, make_tiny_llama, make_tiny_opt

WORDS = [("gardener", "pilot"), ("engineer", "cook"), ("old harbour", "morning"), ("bread", "roses and salt")]


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_opt(tmp_path_factory.mktemp("opt"))


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    pairs = []
    for number, (a, b) in enumerate(WORDS * 4):
        frame = SENTENCES[number % len(SENTENCES)].split()
        place = 1 + number % 3
        sides = [" ".join([*frame[:place], word, *frame[place + 1 :]]) for word in (a, b)]
        pairs.append(
            Pair(pair_id=f"p{number}", group="ab"[number % 2], target=a, stereotype=sides[0], anti_stereotype=sides[1], unrelated="A map.")
        )
    write_records(folder / "pairs.jsonl", pairs)
    write_records(folder / "text.jsonl", [Text(text_id=str(i), text=" ".join(SENTENCES)) for i in range(2)])
    return folder


@pytest.fixture(scope="session")
def few_pairs(calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of it the first pairs, for tests that quantize many models."""
    folder = tmp_path_factory.mktemp("few")
    write_records(folder / "pairs.jsonl", read_records(Pair, calibration / "pairs.jsonl")[:6])
    write_records(folder / "text.jsonl", read_records(Text, calibration / "text.jsonl"))
    return folder
