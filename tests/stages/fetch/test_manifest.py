from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from fairgate.support.errors import FairgateError, MissingFile, UnknownName
from stages.fetch.manifest import MANIFEST, WheelOrigin, read_manifest

SHA = "a" * 64


def small() -> dict[str, Any]:
    origin = {"kind": "wheel", "wheel": "w", "folder": "f", "files": {"a.txt": {"sha256": SHA, "records": 1}}}
    entry = {"licence": "MIT", "attribution": "A", "source": "S", "count": {"format": "lines"}, "origins": [origin]}
    return {"schema": 1, "wheels": {"w": {"version": "1", "bytes": 1, "sha256": SHA}}, "models": {}, "sets": {"s": entry}}


def write(path: Path, data: Any) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


def test_shipped_manifest_is_valid_and_frozen() -> None:
    manifest = read_manifest()
    assert "smollm2-135m-instruct" in manifest.models
    with pytest.raises(ValidationError):
        manifest.sets["piqa"].default = False  # type: ignore[misc]


def test_shipped_record_counts() -> None:
    """The counts that the data sets' papers and repositories state."""
    sets = read_manifest().sets
    counts = {name: sum(file.records or 0 for file in entry.origins[0].files.values()) for name, entry in sets.items()}
    assert counts["stereoset_dev"] == 2106 + 2123
    assert counts["stereoset_test"] == 6392 + 6374
    assert counts["crows_pairs"] == 1508
    assert (counts["arc_easy"], counts["arc_challenge"], counts["winogrande"], counts["lambada"]) == (2376, 1172, 1267, 5153)
    assert counts["hellaswag"] == 6 * 10042
    assert counts["mmlu"] == 285 + 14042
    assert counts["piqa_full"] == 2 * 1838
    assert counts["sbic_stereotypes"] == 3815
    assert counts["boolq_combined"] == 9427 + 3270 + 3245
    assert counts["winobias_dev"] == counts["winobias_test"] == 4 * 396
    assert counts["bbq"] == counts["bbq_metadata"] - 64  # the metadata have 64 duplicate keys
    assert {name for name, entry in sets.items() if entry.complete and counts[name] < entry.complete} == {"piqa"}


def test_shipped_manifest_names_no_url() -> None:
    assert "://" not in MANIFEST.read_text(encoding="utf-8")


def test_small_manifest_reads(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path / "m.yaml", small()))
    origin = manifest.sets["s"].origins[0]
    assert isinstance(origin, WheelOrigin)
    assert origin.members() == {"a.txt": "f/a.txt"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["sets"]["s"]["origins"][0].update(wheel="other"), "not listed under `wheels`"),
        (lambda d: d["sets"]["s"]["origins"][0]["files"]["a.txt"].pop("records"), "no `records` for a.txt"),
        (lambda d: d["sets"]["s"]["origins"][0]["files"]["a.txt"].update(sha256="abc"), "sha256"),
        (lambda d: d["sets"]["s"]["origins"][0].update(kind="ftp"), "kind"),
        (lambda d: d["sets"]["s"]["origins"][0].update(kind="hub", repository="a/b", revision="main", wheel=None), "revision"),
        (lambda d: d["sets"].update({"../up": d["sets"]["s"]}), "../up"),
        (lambda d: d["sets"]["s"]["count"].update(at=["a"]), "names the lists"),
        (lambda d: d["wheels"]["w"].update(bytes="many"), "bytes"),
    ],
)
def test_broken_manifest_names_the_key(tmp_path: Path, change: Any, message: str) -> None:
    data = small()
    change(data)
    with pytest.raises(FairgateError, match=message):
        read_manifest(write(tmp_path / "m.yaml", data))


def test_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'models'"):
        read_manifest(write(tmp_path / "m.yaml", small() | {"model": {}}))


def test_absent_or_malformed_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        read_manifest(tmp_path / "none.yaml")
    (tmp_path / "m.yaml").write_text("a: [")
    with pytest.raises(FairgateError, match="not valid YAML"):
        read_manifest(tmp_path / "m.yaml")
