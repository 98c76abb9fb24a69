"""Every folder is complete.

What the task files, the statistics, the manifest and the roles say of a benchmark agrees.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from fairgate.benchmarks import BENCHMARKS
from fairgate.benchmarks.descriptions import FOLDER, descriptions
from stages.calibrate.stage import read_roles
from stages.fetch.manifest import read_manifest

FILES = sorted(FOLDER.glob("*/*.yaml"))
FOLDERS = sorted({file.parent for file in FILES})


def test_task_names_are_those_of_their_files_and_occur_once() -> None:
    assert sorted(descriptions()) == sorted(file.stem for file in FILES)
    assert len({file.stem for file in FILES}) == len(FILES)


def test_every_task_has_statistics_and_every_statistic_a_task() -> None:
    assert set(BENCHMARKS) == set(descriptions())


def test_ideal_values_are_of_metrics_and_agree_with_their_direction() -> None:
    for name, task in descriptions().items():
        for metric, ideal in task.ideal.items():
            statistic = BENCHMARKS[name].statistics[metric]
            if statistic.neutral is not None:
                assert ideal == statistic.neutral, f"{name}.{metric}"
            else:
                assert (ideal in (0, "low")) == (statistic.better == "lower"), f"{name}.{metric}"
        assert set(task.headline) <= set(BENCHMARKS[name].statistics)


def test_every_set_has_an_origin_and_the_role_that_its_tasks_have() -> None:
    known, sets = read_roles(), read_manifest().sets
    for name, task in descriptions().items():
        assert task.set.split(".")[0] in sets, name
        assert known[task.set] == task.role, name


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_has_hooks_and_its_own_statistics(folder: Path) -> None:
    statistics = (folder / "statistics.py").read_text()
    for file in folder.glob("*.yaml"):
        assert f'"{file.stem}":' in statistics
        assert "!function" not in file.read_text() or (folder / "hooks.py").is_file()


def test_titles_tell_tasks_apart_and_rows_of_the_report_have_places_of_their_own() -> None:
    tasks = descriptions().values()
    assert len({task.title for task in tasks}) == len(tasks)
    places = [row.place for task in tasks for row in task.headline.values()]
    assert len(set(places)) == len(places)


def test_an_incomplete_task_file_is_refused(tmp_path: Path) -> None:
    metadata = {"set": "x", "role": "gate", "title": "X", "about": "bias", "source": "made up"}
    (tmp_path / "x").mkdir()
    (tmp_path / "x/x.yaml").write_text(yaml.safe_dump({"task": "x", "metadata": metadata}))
    with pytest.raises(ValidationError, match="ideal"):
        descriptions(tmp_path)
