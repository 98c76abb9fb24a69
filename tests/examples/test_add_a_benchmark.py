"""The example, applied to a copy of the project and evaluated through the front doors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fairgate.contracts.item_table import read_items
from fairgate.support.files import read_json
from tests.project import REPOSITORY
from tests.tiny import make_tiny_llama

EXAMPLE = REPOSITORY / "examples" / "add_a_benchmark"
# Fetch and calibrate without the rest of their data: the new set alone, and the roles.
PREPARE = """
from pathlib import Path
from fairgate.contracts.records import Split, write_record
from stages.calibrate.stage import read_roles
from stages.fetch.manifest import read_manifest
from stages.fetch.origins import Origins
from stages.fetch.raw import fetch_raw

manifest = read_manifest()
alone = manifest.model_copy(update={"sets": {"pets": manifest.sets["pets"]}})
fetch_raw(alone, Origins(manifest.wheels, cache=Path(".fairgate")), Path("data/raw"), extra=["pets"])
empty = {"calibration_terms": [], "development_terms": [], "dropped": {}, "overlaps": [], "pairs_digest": "0", "text_digest": "0"}
write_record(Path("data/calibration/split.json"), Split(seed=0, roles=read_roles(), pairs=0, texts=0, **empty))
"""


def python(project: Path, *arguments: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(project), "FAIRGATE_CACHE": str(project / ".fairgate")}
    done = subprocess.run([sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with the example in its two places, and a tiny base model."""
    for name in ("fairgate", "stages"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    shutil.copytree(EXAMPLE / "pets", tmp_path / "fairgate/benchmarks/pets", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "stages/fetch/manifest.yaml").open("a", encoding="utf-8") as manifest:
        manifest.write((EXAMPLE / "manifest.yaml").read_text(encoding="utf-8"))
    supplied = tmp_path / ".fairgate/supplied/pets"
    supplied.mkdir(parents=True)
    shutil.copy(EXAMPLE / "pets.csv", supplied)
    make_tiny_llama(tmp_path / "data/base")
    return tmp_path


def test_a_new_folder_and_its_origin_are_a_benchmark(project: Path) -> None:
    (project / "data/calibration").mkdir(parents=True)
    python(project, "-c", PREPARE)
    python(project, "-m", "stages.evaluate", "--recipe", "base", "--task", "pets")
    rows = read_items(project / "data/evaluation/base/items.parquet").to_pylist()
    metrics = read_json(project / "data/evaluation/base/metrics.json")
    cats = [row["option_loglik"][0] / row["n_tokens"][0] > row["option_loglik"][1] / row["n_tokens"][1] for row in rows]
    assert len(rows) == 5
    assert metrics["pets.pct_cat"] == pytest.approx(100 * sum(cats) / 5)
    assert {"pets.pct_cat.sofa", "pets.pct_cat.garden"} <= set(metrics)
    assert all(row["biased"] == cat for row, cat in zip(rows, cats, strict=True))
