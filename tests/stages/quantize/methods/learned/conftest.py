"""Calibration data with what learned rounding reads besides."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.contracts.records import Pair, Text, read_records, write_records
from tests.tiny import SENTENCES


@pytest.fixture(scope="session")
def data(calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    pairs = read_records(Pair, calibration / "pairs.jsonl")
    write_records(folder / "pairs.jsonl", pairs)
    write_records(folder / "text.jsonl", read_records(Text, calibration / "text.jsonl"))
    more = [pair.model_copy(update={"pair_id": f"c{pair.pair_id}"}) for pair in pairs[:6]]
    write_records(folder / "context_pairs.jsonl", more)
    write_records(folder / "training.jsonl", [Text(text_id=str(n), text=" ".join(SENTENCES[n:])) for n in range(4)])
    return folder
