from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fairgate.support.locks import LockHeld, locked

_HOLDER = """
import sys, time
from pathlib import Path
from fairgate.support.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_that_another_holds_is_refused_in_the_callers_words(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path), pytest.raises(LockHeld, match="somebody measures") as caught, locked(path, busy="somebody measures"):
        raise AssertionError("two holders")
    assert str(path) in str(caught.value) and "wait for it" in str(caught.value)
    with locked(path, busy="somebody measures"):
        pass


def test_a_lock_is_free_as_soon_as_its_holder_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    with pytest.raises(LockHeld), locked(tmp_path / "lock", busy="held"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "lock", busy="held"):
        pass


def test_without_a_message_the_lock_is_waited_for(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")

    with locked(tmp_path / "lock"):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_shared_locks_let_each_other_in_and_keep_an_exclusive_one_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, shared=True), locked(path, shared=True, busy="held"), pytest.raises(LockHeld), locked(path, busy="held"):
        raise AssertionError("an exclusive holder beside shared ones")


def test_what_the_file_holds_is_kept_and_can_be_read_and_added_to(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/ledger").write_bytes(b"one\n")
    with locked(tmp_path / "deep/ledger") as file:
        file.seek(0)
        assert file.read() == b"one\n"
        file.write(b"two\n")
    assert (tmp_path / "deep/ledger").read_bytes() == b"one\ntwo\n"
