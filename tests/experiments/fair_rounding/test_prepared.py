"""Tasks tokenised once: cells read nothing again, results are the same, and what was made from
other things is not taken.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.fair_rounding import measure
from experiments.fair_rounding.measure import Place
from experiments.fair_rounding.run import run
from stages.evaluate.catalogue import Catalogue
from tests.experiments.fair_rounding.experiment import DEVELOPMENT, GATE, declaration, failure, make_place
from tests.stages.evaluate.raw import task_file


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def _stored(place: Place) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in place.out.glob("ready/*/*.pickle")}


def test_cells_of_a_process_that_starts_later_read_no_task_and_find_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [cell for phase in ("search", "final") for cell in declaration().cells(phase, {}) if cell.recipe]  # type: ignore[arg-type]
    plain = replace(place, out=place.out.parent / "plain")
    run(cells[:1], plain)
    place.prepare(cells, workers=1)
    stored = _stored(place)
    assert len(stored) == len(DEVELOPMENT) + len(GATE)
    place.prepare(cells, workers=1)
    assert _stored(place) == stored

    later = replace(place)
    monkeypatch.setattr(Catalogue, "load", lambda self, name: pytest.fail(f"{name} is read again"))
    run([cells[0], cells[-1]], later)
    results = [cell.result(place.out) for cell in (cells[0], cells[-1])]
    assert all(results), failure(place.out, cells[-1].name)
    before = cells[0].result(plain.out)
    assert results[0] and before
    assert results[0]["metrics"] == before["metrics"]


def test_what_was_made_from_other_data_code_or_draws_is_not_taken(place: Place) -> None:
    cells = declaration().cells("search", {})[:1]
    place.prepare(cells, workers=0)
    drawn = replace(cells[0], tasks={**cells[0].tasks, "stereoset_dev": 4})
    place.prepare([drawn], workers=0)
    assert len(_stored(place)) == len(DEVELOPMENT) + 1

    names = {replace(place).prepared.folder.name}
    for path in (place.raw / "stereoset_dev/dev.json", task_file(place.tasks, "stereoset_dev"), place.calibration / "split.json"):
        path.write_text(path.read_text() + "\n")
        names.add(replace(place).prepared.folder.name)
    assert len(names) == 4


def test_what_is_stored_after_a_process_began_is_taken_from_then_on(place: Place) -> None:
    cells = declaration().cells("search", {})[:1]
    tasks = place.prepared
    keys = ["no-such-task"]
    assert not tasks.has(keys[0])
    with pytest.raises(KeyError):
        tasks.get(keys[0])
    replace(place).prepare(cells, workers=0)
    keys = [path.stem for path in _stored(place)]
    assert all(tasks.has(key) for key in keys)
    assert tasks.get(keys[0]) is tasks.get(keys[0])


def test_who_evaluates_while_tasks_are_made_ready_waits_for_them(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = declaration().cells("search", {})[:1]
    began = threading.Event()
    real = measure.prepare

    def slow(*arguments: Any, **named: Any) -> None:
        began.set()
        time.sleep(0.5)
        real(*arguments, **named)

    monkeypatch.setattr(measure, "prepare", slow)
    making = threading.Thread(target=replace(place).prepare, args=(cells, 0))
    making.start()
    assert began.wait(10)
    assert not _stored(place)
    tasks = place.prepared
    making.join()
    keys = [path.stem for path in _stored(place)]
    assert keys
    assert all(tasks.has(key) for key in keys)


def test_a_task_that_cannot_be_read_is_left_to_the_cells_which_say_why(place: Place) -> None:
    path = place.raw / "stereoset_test/test.json"
    path.write_text(path.read_text().replace('"bias_type"', '"type"'))
    cells = declaration().cells("final", {})[:1]
    place.prepare(cells, workers=0)
    assert len(_stored(place)) == len(GATE) - 1
    run(cells, replace(place))
    assert "stereoset" in failure(place.out, "base-s0")
