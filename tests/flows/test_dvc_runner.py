from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from fairgate.support.errors import FairgateError
from fairgate.support.locks import locked
from flows.dvc_errors import dvc_remedy
from flows.dvc_runner import LockBusy, StageFailed, run_stage, stage_names, stop_leftovers
from tests.pipeline import FIRST, SLOW, dvc, environment, make_dvc
from tests.project import REPOSITORY


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


def test_a_frozen_stage_is_named(pipeline: Path) -> None:
    whole = (pipeline / "dvc.yaml").read_text()
    (pipeline / "dvc.yaml").write_text(whole.replace("    cmd: python second.py", "    frozen: true\n    cmd: python second.py"))
    with pytest.raises(FairgateError, match=r"dvc\.yaml: stage 'second@a' is frozen[\s\S]*take `frozen: true` out"):
        stage_names(pipeline)
    # What is no stage of the pipeline may be frozen, as whatever `dvc import` brings.
    (pipeline / "dvc.yaml").write_text(whole)
    (pipeline / "given.txt.dvc").write_text("frozen: true\ndeps:\n- path: first.py\nouts:\n- path: given.txt\n")
    assert "first" in stage_names(pipeline)


def text_in(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "said", "remedy"),
    [
        (".dvcignore", "data\n", "is ignored", r"take the pattern out of \.dvcignore"),
        (".dvcignore", "*.txt\n", "is ignored", r"take the pattern out of \.dvcignore"),
        (".dvc/config", "", "is not a git repository", "git init"),
        (".dvc/config", "[core]\n no_scm", "config file error", r"correct \.dvc/config"),
        (".dvc/config", "[core]\n no_scm = True\n nonsense = 3\n", "extra keys not allowed", r"correct \.dvc/config"),
        ("dvc.lock", "schema: [", "YAML file structure is corrupted", r"delete dvc\.lock"),
        ("dvc.lock", "schema: '9.0'", "validation failed", r"delete dvc\.lock"),
        ("dvc.yaml", "stages: [", "YAML file structure is corrupted", r"correct dvc\.yaml"),
        ("dvc.yaml", "stages:\n  first:\n    cmd_: 3\n", "validation failed", r"correct dvc\.yaml"),
        ("dvc.yaml", "stages:\n  first:\n    cmd: x ${nothing}\n", "nothing", r"correct dvc\.yaml"),
        ("dvc.yaml", "", "no stages", r"correct dvc\.yaml"),
    ],
)
def test_what_dvc_cannot_read_is_said_with_its_reason_and_remedy(pipeline: Path, name: str, text: str, said: str, remedy: str) -> None:
    text_in(pipeline / name, text)
    with pytest.raises(FairgateError, match=rf"{said}[\s\S]*Remedy: [\s\S]*{remedy}"):
        stage_names(pipeline)


@pytest.mark.parametrize(
    ("name", "text", "said", "remedy"),
    [
        (".dvc/tmp/rwlock", "", r"Unable to read RWLock-file '\.dvc/tmp/rwlock'", r"remove \.dvc/tmp/rwlock"),
        (".dvc/tmp/rwlock", "[1]", r"RWLock-file '\.dvc/tmp/rwlock' format error", r"remove \.dvc/tmp/rwlock"),
        (".dvc/cache/files", "no folder", r".*Not a directory: '.*/\.dvc/cache/files", "move away what stands at this path"),
        ("first.py", "", r"output 'data/first\.txt' does not exist", "did not write this output"),
    ],
)
def test_a_failure_of_dvc_carries_its_reason_and_remedy(pipeline: Path, name: str, text: str, said: str, remedy: str) -> None:
    text_in(pipeline / name, text)
    with pytest.raises(StageFailed, match=rf"^first: DVC failed: {said}[^\n]*\nRemedy: [^\n]*{remedy}"):
        run_stage(pipeline, "first")


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("[Errno 28] No space left on device: '.dvc/cache/files/md5/c4'", "free some space"),
        ("[Errno 13] Permission denied: '.dvc/cache/files/md5/c4'", "another user"),
        ("[Errno 30] Read-only file system: 'dvc.lock.tmp'", "writable"),
        ("Unable to acquire lock. Most likely another DVC process is running", "wait for the other dvc"),
        ("something that nobody has seen yet", "DVC's own words"),
    ],
)
def test_what_cannot_be_made_to_fail_here_has_its_remedy(words: str, remedy: str) -> None:
    assert remedy in dvc_remedy(words)


def test_data_on_another_disk_is_refused_before_a_stage_runs(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (pipeline / ".dvc/config").write_text("")
    subprocess.run(["git", "init", "-q"], cwd=pipeline, check=True)
    store = tmp_path_factory.mktemp("store")
    (pipeline / "data").rmdir()
    (pipeline / "data").symlink_to(store)
    with pytest.raises(FairgateError, match=rf"{pipeline}/data: it lies in {store}, outside of git repository[\s\S]*mount the other disk"):
        stage_names(pipeline)
    # DVC says so itself where nobody has looked before: after the stage has run.
    with pytest.raises(
        StageFailed, match=r"^first: DVC failed: '.*/data/first\.txt' is outside of git repository[\s\S]*mount the other disk"
    ):
        run_stage(pipeline, "first")
    # A link that stays inside the repository is fine.
    (pipeline / "data").unlink()
    (pipeline / "store").mkdir()
    (pipeline / "data").symlink_to("store")
    assert "first" in stage_names(pipeline)


def test_another_dvc_is_waited_for_and_said(pipeline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_stage(pipeline, "first")
    with locked(pipeline / ".dvc/tmp/lock"):
        done: list[bool] = []
        waiting = threading.Thread(target=lambda: done.append(run_stage(pipeline, "first").changed))
        waiting.start()
        waiting.join(2)
        assert not done
    waiting.join(60)
    assert done == [False] and "another DVC process works in this project; waiting for it" in capsys.readouterr().err


def test_no_secret_of_a_stage_is_passed_on(pipeline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_öffnet-alles")
    pieces = ["at http", "://fair:s3", "cret@host ", "hf_öffnet-alles", "\n", "fairgate: error: s3cret"]
    write = f"for piece in {pieces}:\n    os.write(2, piece.encode())\n    time.sleep(0.2)\n"
    (pipeline / "first.py").write_text(f"import os, sys, time\n{write}sys.exit(2)\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://fair:s3cret@host")
    with pytest.raises(StageFailed, match=r"first: \*\*\*$"):
        run_stage(pipeline, "first")
    said = capsys.readouterr().err
    assert "at http://***@host ***" in said and "s3" not in said and "alles" not in said


@pytest.mark.parametrize("absent", [True, False])
def test_a_stage_ends_although_nobody_reads_its_output(pipeline: Path, monkeypatch: pytest.MonkeyPatch, absent: bool) -> None:
    (pipeline / "first.py").write_text(FIRST + "print('a line\\n' * 100_000)\n")
    reader, writer = os.pipe()
    os.close(reader)
    broken = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stderr", None if absent else broken)
    assert run_stage(pipeline, "first", timeout_s=20, grace_s=1).changed
    monkeypatch.undo()
    with suppress(BrokenPipeError):
        broken.close()


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


def test_the_base_is_evaluated_before_the_first_quantization() -> None:
    """What makes a model unfit for a benchmark is found before hours of quantization."""
    names = stage_names(REPOSITORY)
    quantizations = [name for name in names if name.startswith("quantize")]
    assert names[:3] == ["fetch", "calibrate", "evaluate_base"]
    assert names.index("evaluate_base") < min(map(names.index, quantizations))
    for recipe in (name.split("@")[1] for name in quantizations):
        assert names.index(f"quantize@{recipe}") < names.index(f"evaluate@{recipe}") < names.index("report")
    assert names.index("gate") < names.index("report") < names.index("register")
