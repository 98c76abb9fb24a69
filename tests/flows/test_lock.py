from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from flows.dvc_runner import TOKEN
from flows.lock import ReleaseRunning, lock_project
from tests.pipeline import environment


def test_second_holder_is_told_who_holds(tmp_path: Path) -> None:
    with lock_project(tmp_path), pytest.raises(ReleaseRunning) as error, lock_project(tmp_path):
        pass
    assert f"process {os.getpid()} on {platform.node()}, since 20" in str(error.value)
    with lock_project(tmp_path):
        pass


def test_own_token_lets_in_and_a_foreign_one_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lock_project(tmp_path) as token:
        monkeypatch.setenv(TOKEN, token)
        with lock_project(tmp_path) as inner:
            assert inner == token
        monkeypatch.setenv(TOKEN, "another")
        with pytest.raises(ReleaseRunning), lock_project(tmp_path):
            pass


def test_killed_holder_frees_the_lock_and_what_it_left_is_ended(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys\nfrom pathlib import Path\nfrom flows.lock import lock_project\n"
        "with lock_project(Path.cwd()) as token:\n"
        "    sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        f"    child = subprocess.Popen(sleep, stdout=subprocess.DEVNULL, env={{**os.environ, '{TOKEN}': token}})\n"
        "    print(child.pid, flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True, timeout=60)
    child = Path(f"/proc/{int(done.stdout)}")
    assert child.exists()
    with lock_project(tmp_path):
        assert not child.exists() or "\nState:\tZ" in (child / "status").read_text()
