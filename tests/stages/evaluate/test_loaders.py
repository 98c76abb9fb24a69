"""The task files against the original benchmark files, where they lie beside the checkout."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from fairgate.benchmarks.descriptions import FOLDER
from stages.evaluate.catalogue import Catalogue
from tests.stages.evaluate.raw import write_split


@pytest.fixture(scope="module")
def originals(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    raw = tmp_path_factory.mktemp("raw")
    terms = set()
    for name, source in {"stereoset_test/test.json": "stereoset/test.json.gz", "stereoset_dev/dev.json": "stereoset/dev.json.gz"}.items():
        (raw / name).parent.mkdir()
        text = gzip.decompress((shared / source).read_bytes())
        (raw / name).write_bytes(text)
        terms = {item["target"].lower() for item in json.loads(text)["data"]["intrasentence"]}
    (raw / "boolq_dev").mkdir()
    (raw / "boolq_dev" / "dev.jsonl").write_bytes(gzip.decompress((shared / "boolq" / "dev.jsonl.gz").read_bytes()))
    (raw / "crows_pairs").mkdir()
    shutil.copy(shared / "crows_pairs" / "crows_pairs_anonymized.csv", raw / "crows_pairs")
    return Catalogue(raw, write_split(raw / "split.json", development_terms=sorted(terms)[:10]))


def test_stereoset(originals: Catalogue) -> None:
    items = originals.load("stereoset").items
    assert Counter(item.group for item in items) == {"race": 2976, "profession": 2398, "gender": 771, "religion": 247}
    assert len({item.cluster for item in items}) == 242
    assert all(len(set(item.prompts)) == 3 for item in items)
    assert len({item.id for item in items}) == 6392


def test_stereoset_dev_is_cut_to_the_development_terms(originals: Catalogue) -> None:
    items = originals.load("stereoset_dev").items
    # Most target terms of the type race are written with a capital, those of the split file are
    # not.
    assert len({item.cluster for item in items}) == 10
    assert any(item.cluster != item.cluster.lower() for item in items)
    assert not {item.cluster for item in items} & {item.cluster for item in originals.load("stereoset").items}


def test_crows_pairs(originals: Catalogue) -> None:
    items = originals.load("crows_pairs").items
    sizes = {"race-color": 516, "gender": 262, "socioeconomic": 172, "nationality": 159, "religion": 105, "age": 87}
    sizes |= {"sexual-orientation": 84, "physical-appearance": 63, "disability": 60}
    assert Counter(item.group for item in items) == sizes
    assert Counter(item.subgroup for item in items) == {"stereo": 1290, "antistereo": 218}


def test_boolq(originals: Catalogue) -> None:
    items = originals.load("boolq").items
    assert len(items) == 3270
    assert Counter(item.gold for item in items) == {1: 2033, 0: 1237}
    assert items[0].prompts[1][1] == " yes"
    assert items[0].prompts[0][0].endswith("\nQuestion: does ethanol take more energy make that produces?\nAnswer:")


def test_every_task_file_names_role_version_and_counts() -> None:
    catalogue = Catalogue(Path("raw"), Path("split.json"))
    assert len(catalogue.names) == len(list(FOLDER.rglob("*.yaml")))
    for name in catalogue.names:
        metadata = catalogue.metadata(name)
        assert metadata["role"] in ("gate", "development", "calibration")
        assert {"version", "set"} <= set(metadata)
        assert "file" in metadata or {"files", "records"} <= set(metadata)
