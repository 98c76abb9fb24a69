from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from fairgate.support.errors import FairgateError
from flows.dvc_runner import LockBusy, StageFailed, run_stage, stage_names, stop_leftovers
from tests.pipeline import SLOW, dvc, environment, make_dvc


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return make_dvc(tmp_path)


def wait_for(path: Path) -> int:
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.05)
    return int(path.read_text())


def is_gone(pid: int) -> bool:
    """No such process, or one that only waits to be reaped; looks for up to 5 s."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_order_comes_from_the_dag_with_the_matrix_expanded(pipeline: Path) -> None:
    names = stage_names(pipeline)
    assert sorted(names) == ["first", "last", "second@a", "second@b"]
    assert names[0] == "first" and names[-1] == "last"


def test_unreadable_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(FairgateError, match="DVC cannot read the pipeline"):
        stage_names(tmp_path)


def test_stage_runs_once_and_is_skipped_after(pipeline: Path) -> None:
    assert run_stage(pipeline, "first").changed
    assert (pipeline / "data/first.txt").read_text() == "1"
    assert not run_stage(pipeline, "first").changed
    assert run_stage(pipeline, "first", force=True).changed


def test_failure_carries_the_words_of_the_stage(pipeline: Path) -> None:
    (pipeline / "first.py").write_text("import sys\nsys.exit('fairgate: error: group size 7 does not divide 64\\nRemedy: 32')")
    with pytest.raises(StageFailed) as error:
        run_stage(pipeline, "first")
    assert str(error.value) == "first: group size 7 does not divide 64\nRemedy: 32"


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])  # one stays between DVC and the stage, the other gives way
def test_a_stage_that_was_killed_is_said_with_its_signal(pipeline: Path, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("SHELL", shell)
    (pipeline / "first.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    with pytest.raises(StageFailed, match=r"first: the stage was killed by SIGKILL[\s\S]*out of memory"):
        run_stage(pipeline, "first")


def test_a_dvc_that_is_ended_while_it_writes_its_lock_forgets_nothing(pipeline: Path) -> None:
    run_stage(pipeline, "first")
    whole = (pipeline / "dvc.lock").read_bytes()
    # As DVC leaves it when it is ended there: emptied, and not yet written.
    (pipeline / "second.py").write_text(
        "from pathlib import Path\nimport os\nPath('dvc.lock').write_bytes(b'')\nos.kill(os.getppid(), 9)\n"
    )
    with pytest.raises(StageFailed):
        run_stage(pipeline, "second@a", grace_s=1)
    assert (pipeline / "dvc.lock").read_bytes() == whole
    assert not run_stage(pipeline, "first").changed


def test_a_damaged_lock_file_is_named_with_what_to_do(pipeline: Path) -> None:
    (pipeline / "dvc.lock").write_bytes(b"")
    with pytest.raises(FairgateError, match=r"dvc\.lock[\s\S]*delete dvc\.lock"):
        stage_names(pipeline)


def test_timeout_ends_the_stage_and_its_children(pipeline: Path) -> None:
    (pipeline / "first.py").write_text(SLOW)
    with pytest.raises(StageFailed, match="limit of 4 s"):
        run_stage(pipeline, "first", timeout_s=4)
    assert is_gone(wait_for(pipeline / "pids.txt"))


def test_stage_that_ignores_sigterm_is_killed_after_the_grace(pipeline: Path) -> None:
    (pipeline / "first.py").write_text("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLOW)
    started = time.monotonic()
    with pytest.raises(StageFailed):
        run_stage(pipeline, "first", timeout_s=4, grace_s=1)
    assert time.monotonic() - started < 15
    assert is_gone(wait_for(pipeline / "pids.txt"))


def test_killed_dvc_leaves_no_stage_behind_and_the_next_run_is_clean(pipeline: Path) -> None:
    (pipeline / "first.py").write_text("import os\nfrom pathlib import Path\nPath('dvc.txt').write_text(str(os.getpgid(0)))\n" + SLOW)
    killer = threading.Thread(target=lambda: (wait_for(pipeline / "pids.txt"), os.kill(wait_for(pipeline / "dvc.txt"), signal.SIGKILL)))
    killer.start()
    with pytest.raises(StageFailed, match="killed by SIGKILL"):
        run_stage(pipeline, "first", grace_s=5)
    killer.join()
    assert is_gone(wait_for(pipeline / "pids.txt"))
    (pipeline / "first.py").write_text("from pathlib import Path\nPath('data/first.txt').write_text('1')\n")
    assert run_stage(pipeline, "first").changed


def test_killed_runner_leaves_marked_processes_that_are_found_and_ended(pipeline: Path) -> None:
    (pipeline / "first.py").write_text(SLOW)
    token = uuid.uuid4().hex
    code = f"from pathlib import Path\nfrom flows.dvc_runner import run_stage\nrun_stage(Path.cwd(), 'first', token='{token}')"
    runner = subprocess.Popen([sys.executable, "-c", code], cwd=pipeline, env=environment(), stderr=subprocess.DEVNULL)
    child = wait_for(pipeline / "pids.txt")
    runner.kill()
    runner.wait()
    assert Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    assert stop_leftovers(token) >= 2
    assert is_gone(child)
    assert stop_leftovers(token) == 0


def test_busy_lock_is_told_apart_from_a_failure(pipeline: Path) -> None:
    info = f'{{"pid": {os.getpid()}, "cmd": "another"}}'
    (pipeline / ".dvc/tmp").mkdir(exist_ok=True)
    (pipeline / ".dvc/tmp/rwlock").write_text(f'{{"write": {{"{pipeline / "data/first.txt"}": {info}}}, "read": {{}}}}')
    with pytest.raises(LockBusy):
        run_stage(pipeline, "first")


def test_finished_stages_are_reused_after_a_failure(pipeline: Path) -> None:
    run_stage(pipeline, "first")
    (pipeline / "second.py").write_text("raise SystemExit(2)")
    with pytest.raises(StageFailed):
        run_stage(pipeline, "second@a")
    assert not run_stage(pipeline, "first").changed
    assert "second@a" in dvc(pipeline, "status")
