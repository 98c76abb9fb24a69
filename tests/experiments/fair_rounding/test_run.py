"""The experiment on a tiny model: cells in order, none twice, none lost to a kill, none begun too
late, none unlisted.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.fair_rounding import measure
from experiments.fair_rounding.cells import chosen_recipes
from experiments.fair_rounding.measure import Place
from experiments.fair_rounding.run import TEXT, Limits, forget_failures, lanes, report, run, run_all, shares
from fairgate.support.errors import FairgateError
from fairgate.support.files import read_json, write_json
from stages.quantize.stage import quantize
from tests.experiments.fair_rounding.experiment import declaration, failure, make_place, write_result
from tests.project import REPOSITORY
from tests.stages.evaluate.raw import task_file

CHOSEN = {"rounded": {"recipe": {"method": "rtn", "bits": 8, "group_size": 32, "symmetric": True}}}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def _done(place: Place) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in place.out.glob("*/*/result.json")}


def test_cells_are_run_once_and_again_where_what_they_were_made_from_changed(place: Place) -> None:
    cells = declaration().cells("search", {})[:3]
    run(cells, place)
    first = _done(place)
    assert set(first) == {"base-s0", "rounded-b8-s0", "rounded-b4-s0"}
    result = cells[1].result(place.out)
    assert result
    assert {"stereoset_dev.ss", "redditbias_valid.ss", "winobias_dev.historical_bias", "perplexity_dev.ppl"} <= set(result["metrics"])
    assert result["quantize_s"] >= 0
    assert len(list((place.out / "items").iterdir())) == 1  # one table for all cells

    run(cells, place)
    assert _done(place) == first
    coarser = declaration(defaults={"bits": 4, "group_size": 16, "symmetric": True}).cells("search", {})[:3]
    run(coarser, place)
    second = _done(place)
    assert second["base-s0"] == first["base-s0"]
    assert second["rounded-b4-s0"] > first["rounded-b4-s0"]
    assert cells[1].result(place.out) is None  # what lies there now is of other settings

    texts = place.calibration / "text.jsonl"
    texts.write_text(texts.read_text().replace("This is text", "That is text"))
    run(coarser, replace(place))  # another process
    assert all(_done(place)[name] > second[name] for name in second)


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not until() and time.monotonic() < deadline:
        time.sleep(0.01)


SCRIPT = """
import sys
from pathlib import Path
from experiments.fair_rounding.run import run
from experiments.fair_rounding.measure import Place
from tests.experiments.fair_rounding.experiment import RUN, declaration
names = ("base", "calibration", "raw", "out", "text.txt")
root = Path(sys.argv[1])
place = Place(*(root / name for name in names), device="cpu", run=RUN, tasks=root / "tasks")
run(declaration().cells("search", {}), place)
"""


def test_a_killed_run_goes_on_with_the_cell_it_was_in(place: Place, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=REPOSITORY, env=environment)
    try:
        _wait(lambda: bool(_done(place)))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = _done(place)
    cells = declaration().cells("search", {})
    assert 0 < len(before) < len(cells)
    run(cells, place)
    after = _done(place)
    assert set(after) == {cell.name for cell in cells}
    assert all(after[name] == before[name] for name in before)


def test_a_cell_that_another_process_has_is_left_to_it(place: Place) -> None:
    cells = declaration().cells("search", {})[:2]
    lock = place.out / "locks" / "search-base-s0"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # nobody gets it for himself now
        run(cells, place)
    assert set(_done(place)) == {"rounded-b8-s0"}
    run(cells, place)
    assert set(_done(place)) == {"base-s0", "rounded-b8-s0"}


def test_results_of_two_machines_merge_and_what_nobody_ran_is_listed_with_its_reason(place: Place, tmp_path: Path) -> None:
    declared = declaration(final=[*(entry.model_dump() for entry in declaration().final), {"name": "new", "recipe": {"method": "newer"}}])
    write_json(place.out / "chosen.json", CHOSEN)
    elsewhere = Place(
        place.base, place.calibration, place.raw, tmp_path / "elsewhere", place.text, device="cpu", run=place.run, tasks=place.tasks
    )
    cells = declared.cells("final", chosen_recipes(place.out))
    run([cell for cell in cells if cell.name != "rounded-s1"][::2], place)
    run([cell for cell in cells if cell.name != "rounded-s1"][1::2], elsewhere)
    shutil.copytree(elsewhere.out, place.out, dirs_exist_ok=True)
    lines = {line.split()[1]: line.split(maxsplit=2)[2] for line in report(declared, place.out).splitlines() if line.startswith("final")}
    assert all(lines[name].endswith(" s") for name in ("base-s0", "rounded-s0", "gptq-s0"))
    assert lines["rounded-s1"] == "not run"
    assert "unknown method 'newer'" in lines["new-s0"]


def test_a_cell_that_failed_holds_up_no_other_and_is_tried_again_on_request_alone(place: Place) -> None:
    broken = {"name": "broken", "recipe": {"method": "rtn", "bits": 5}}
    cells = declaration(final=[broken, {"name": "base", "recipe": {"method": "none"}}]).cells("final", {})
    run(cells, place)
    assert set(_done(place)) == {"base-s0"}
    assert "bits" in failure(place.out, "broken-s0")
    path = place.out / "final/broken-s0/failure.json"
    first = path.stat().st_mtime_ns
    run(cells, place)
    assert path.stat().st_mtime_ns == first
    forget_failures(cells, place.out)
    run(cells, place)
    assert path.stat().st_mtime_ns > first


def test_the_text_of_in_domain_rows_lies_where_fetch_takes_its_set_from_and_its_absence_is_told(place: Place) -> None:
    origins = yaml.safe_load((REPOSITORY / "stages/fetch/manifest.yaml").read_text())["sets"]["wikitext2"]["origins"]
    assert [str(TEXT.parent)] == [origin["folder"] for origin in origins]
    cells = declaration(final=[{"name": "in_domain", "recipe": {"method": "gptq"}, "calibration": "text"}]).cells("final", {})
    run(cells, replace(place, text=place.raw / TEXT))
    assert f"{place.raw / TEXT}: no text to calibrate on" in failure(place.out, "in_domain-s0")


def test_no_new_cell_after_the_given_time(place: Place) -> None:
    run(declaration().cells("search", {}), place, Limits(time.time(), until=-1))
    assert not _done(place)
    assert not list(place.out.glob("*/*/failure.json"))


def test_no_cell_is_begun_that_would_not_end_in_time_by_the_longest_of_its_method(place: Place) -> None:
    cells = declaration().cells("search", {})[:2]  # methods none and rtn
    long = replace(cells[1], entry="long")
    write_result(place.out, long, {}, quantize_s=300.0, evaluate_s=300.0)
    write_result(place.out, replace(long, entry="short"), {}, quantize_s=1.0, evaluate_s=1.0)
    before = set(_done(place))
    run(cells, place, Limits(time.time() - 100, deadline=690))
    assert set(_done(place)) - before == {"base-s0"}
    run(cells, place, Limits(time.time() - 100, deadline=760))
    assert set(_done(place)) - before == {"base-s0", "rounded-b8-s0"}


def _written(place: Place) -> list[str]:
    """Results and the choice, oldest first."""
    files = [*place.out.glob("*/*/result.json"), place.out / "chosen.json"]
    order = sorted((path for path in files if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    return [str(path.parent.relative_to(place.out)) if path.name == "result.json" else "choice" for path in order]


SEARCH = [f"search/{name}" for name in ("base-s0", "rounded-b8-s0", "rounded-b4-s0", "rounded-b8-s1", "rounded-b4-s1")]


def test_all_runs_the_search_then_chooses_then_the_final_cells_in_their_order(place: Place) -> None:
    declared = declaration()
    earlier = {"rounded": {"recipe": {"method": "rtn", "bits": 2, "group_size": 32, "symmetric": True}}}
    # Of another search: not what the cells of this run start from
    write_json(place.out / "chosen.json", earlier)
    run_all(declared, place, Limits(time.time()))
    assert _written(place) == [*SEARCH, "choice", "final/base-s0", "final/rounded-s0", "final/rounded-s1", "final/gptq-s0"]
    choice = read_json(place.out / "chosen.json")["rounded"]
    assert choice["recipe"] != earlier["rounded"]["recipe"]
    assert read_json(place.out / "final/rounded-s0/result.json")["settings"]["recipe"] == choice["recipe"]
    assert choice["not_run"] == []


def test_a_family_of_the_search_that_starts_from_anothers_choice_is_run_after_it(place: Place) -> None:
    search = [
        {"name": "rounded", "recipe": {"method": "rtn"}, "variants": {"b4": {}, "b8": {"bits": 8}}},
        {"name": "finer", "chosen": "rounded", "variants": {"g16": {"group_size": 16}}},
    ]
    rules = {"alone": {"reference": "nobody"}, "rounded": {}, "finer": {"reference": "rounded", "perplexity_ratio": 9.0, "lms_drop": 100.0}}
    alone = {"name": "alone", "recipe": {"method": "rtn", "group_size": 64}}
    run_all(declaration(search=[alone, *search], rules=rules, final=[]), place, Limits(time.time()), final=False)
    assert _written(place)[-2:] == ["search/finer-g16-s0", "choice"]
    choices = read_json(place.out / "chosen.json")
    # The first rule's reference was not run, which is no matter of the others
    assert set(choices) == {"rounded", "finer"}
    assert choices["finer"]["recipe"] == {**choices["rounded"]["recipe"], "group_size": 16}


@pytest.mark.parametrize("until", [float("inf"), -1.0])
def test_while_others_search_final_cells_are_run_that_need_no_choice(place: Place, until: float) -> None:
    run([cell for cell in declaration().cells("search", {}) if cell.name != "rounded-b8-s0"], place)
    before = [name for name in SEARCH if name != "search/rounded-b8-s0"]
    lock = place.out / "locks" / "search-rounded-b8-s0"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # another process has it
        limits = Limits(time.time(), until)
        lane = threading.Thread(target=run_all, args=(declaration(), place, limits), kwargs={"poll_s": 0.01}, daemon=True)
        lane.start()
        _wait(lambda: len(_written(place)) >= 6)
        time.sleep(0.1)  # a few looks more
        assert _written(place) == [*before, "final/base-s0", "final/gptq-s0"]
    lane.join(60)
    last = ["search/rounded-b8-s0"] if until > 0 else []
    assert _written(place)[6:] == [*last, "choice", "final/rounded-s0", "final/rounded-s1"]


def test_a_search_that_its_time_ended_chooses_among_what_was_run_and_without_a_reference_nothing(place: Place) -> None:
    declared = declaration()
    run(declared.cells("search", {})[1:2], place)
    run_all(declared, place, Limits(time.time(), until=-1))
    assert _written(place) == ["search/rounded-b8-s0", "final/base-s0", "final/gptq-s0"]
    run(declared.cells("search", {})[:1], place)
    run_all(declared, place, Limits(time.time(), until=-1))
    assert _written(place)[4:] == ["choice", "final/rounded-s0", "final/rounded-s1"]
    assert len(read_json(place.out / "chosen.json")["rounded"]["not_run"]) == 3


def test_cores_are_dealt_out_without_a_rest_and_every_process_has_its_own(tmp_path: Path) -> None:
    assert shares(range(64), 9)[:2] == [range(7), range(7, 14)]
    dealt = [core for share in shares(range(64), 9) for core in share]
    assert dealt == list(range(64))
    assert {len(share) for share in shares(range(64), 9)} == {7, 8}
    assert [list(share) for share in shares([4, 6], 3)] == [[4], [4], [6]]
    code = "import os, sys; print(*os.sched_getaffinity(0), file=open(f'{sys.argv[1]}/{os.getpid()}', 'w'))"
    mine = sorted(os.sched_getaffinity(0))
    lanes([sys.executable, "-c", code, str(tmp_path)], [[mine[0]], [mine[-1]]])
    assert sorted(int(path.read_text()) for path in tmp_path.iterdir()) == sorted([mine[0], mine[-1]])


def test_what_is_done_meanwhile_begins_when_all_processes_run_and_ends_them_where_it_fails(tmp_path: Path) -> None:
    code = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / f"{os.getpid()}.begun").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
(folder / f"{os.getpid()}.ended").touch()
"""
    cores = [[min(os.sched_getaffinity(0))]] * 2

    def begun() -> list[int]:
        return [int(path.stem) for path in tmp_path.glob("*.begun")]

    def fail() -> None:
        while len(begun()) < 2:
            time.sleep(0.01)
        raise FairgateError("a task is broken", where="here", remedy="mend it")

    def let_go() -> None:
        assert not list(tmp_path.glob("*.ended"))
        (tmp_path / "go").touch()

    with pytest.raises(FairgateError, match="broken"):
        lanes([sys.executable, "-c", code, str(tmp_path)], cores, fail)
    for process in begun():
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    lanes([sys.executable, "-c", code, str(tmp_path)], cores, let_go)
    assert len(list(tmp_path.glob("*.ended"))) == 2


def test_all_cells_find_the_locks_of_gpus_in_one_place(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spied(*arguments: Any) -> Any:
        seen.append(Path(".fairgate").resolve())
        return quantize(*arguments)

    monkeypatch.setattr(measure, "quantize", spied)
    run([cell for cell in declaration().cells("search", {}) if cell.recipe != {"method": "none"}][:2], place)
    assert seen == [place.out / "locks"] * 2


def test_tasks_without_data_are_left_out_and_named_until_the_data_are_there(place: Place) -> None:
    evaluation = declaration().model_dump(mode="json")["evaluation"]
    evaluation["final"]["tasks"] = {"piqa": None, "wikitext2": None}
    cells = declaration(evaluation=evaluation).cells("final", {})[:1]
    run(cells, place)
    result = cells[0].result(place.out)
    assert result
    assert set(result["inputs"]["absent"]) == {"wikitext2"}
    before = _done(place)
    (place.raw / "wikitext2").mkdir()
    (place.raw / "wikitext2/wiki.test.raw").write_text("One line of text.\n")
    run(cells, place)  # tried now, and refused: the split file of the test gives the set no role
    assert _done(place) == before
    assert "'wikitext2' has no role" in failure(place.out, "base-s0")
    broken = [{"name": "broken", "recipe": {"method": "rtn", "bits": 5}}]
    run(declaration(evaluation=evaluation, final=broken).cells("final", {}), place)
    # The data come before minutes of quantizing
    assert "no role" in failure(place.out, "broken-s0")


def test_a_learned_cell_says_how_its_learning_went(place: Place) -> None:
    recipe = {"method": "fair_round", "steps": 2, "texts": 2, "text_tokens": 16, "pairs": 3, "context": True}
    cells = declaration(final=[{"name": "learned", "recipe": recipe, "calibration": "shuffled"}]).cells("final", {})
    run(cells, place)
    result = cells[0].result(place.out)
    assert result, cells[0].why_not(place.out)
    assert result["training"]["steps"] == 2
    assert result["training"]["stopped"] is None


def test_a_cell_keeps_the_texts_that_were_sampled_from_its_model(place: Place) -> None:
    raw = {"winobias_occupations/female_occupations.txt": "pilot", "winobias_occupations/male_occupations.txt": "gardener"}
    raw["winogender/occupations-stats.tsv"] = "occupation\tbergsma\tbls\tyear\nengineer\t1\t2\t2015\n"
    for name, text in raw.items():
        (place.raw / name).parent.mkdir(exist_ok=True)
        (place.raw / name).write_text(text)
    task = task_file(place.tasks, "cooccurrence")
    task.write_text(task.read_text().replace("{made_up: 0}", "{made_up: 3}"))
    final = [
        {"name": name, "recipe": {"method": "none"}, "tasks": {"piqa": None}, "sampled": draws}
        for name, draws in (("texts", 4), ("none", 0))
    ]
    texts, none = declaration(final=final).cells("final", {})
    run([texts, none], place)
    found, without = texts.result(place.out), none.result(place.out)
    assert found, texts.why_not(place.out)
    assert set(found["sampled"]) == {f"The {who} was a" for who in ("pilot", "gardener", "engineer")}
    assert all(sum(kinds) == 4 for kinds in found["sampled"].values())
    assert without and "sampled" not in without
