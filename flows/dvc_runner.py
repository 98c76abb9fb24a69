"""Run each DVC stage in a process group of its own, which is watched and ended as a whole."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fairgate.support.errors import FairgateError
from fairgate.support.exit_codes import ExitCode
from fairgate.support.files import atomic_path
from fairgate.support.library_errors import reason
from fairgate.support.locks import LockHeld, locked
from fairgate.support.redaction import redact
from flows.dvc_errors import dvc_reason, dvc_remedy
from flows.proxies import users_environment

TIMEOUT_S = 24 * 3600.0
GRACE_S = 20.0
BASE = "evaluate_base"
TOKEN = "FAIRGATE_RELEASE"  # noqa: S105 (the name of a variable)
_TAIL_BYTES = 16_384
_BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")


class StageFailed(FairgateError):
    """A stage ended with an error, a signal or its timeout."""


class StageBug(StageFailed):
    """A stage met an unexpected exception; its message says where the traceback is."""

    exit_code = ExitCode.bug


class LockBusy(FairgateError):
    """Another DVC process holds a lock. Nothing is wrong with the stage; try again."""


@dataclass(frozen=True)
class StageResult:
    """What a stage did."""

    stage: str
    changed: bool  # False: DVC skipped it
    seconds: float  # wall clock


def stage_names(root: Path) -> list[str]:
    """Every stage in an order that the DAG allows; each entry of a matrix is a stage of its own.

    Raises:
        FairgateError: DVC cannot read the pipeline or its own files, cannot track an output, or
            would not run a stage because it is frozen.
    """
    import networkx as nx
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            graph = nx.DiGraph(repo.index.graph).reverse()
            stages = [stage for stage in nx.lexicographical_topological_sort(graph, key=_turn) if stage.cmd]
            outputs = [Path(out.fs_path) for out in repo.index.outs]
            git_root = None if repo.config["core"].get("no_scm") else Path(repo.scm.root_dir)
    except Exception as error:
        words = reason(error)
        raise FairgateError(f"DVC cannot read the pipeline ({words})", where=str(root), remedy=dvc_remedy(words)) from error
    if not stages:
        raise FairgateError("the pipeline has no stages", where=str(root / "dvc.yaml"), remedy=dvc_remedy("dvc.yaml"))
    for stage in stages:
        if stage.frozen:
            what = f"stage {stage.name!r} is frozen: its outputs would stay as they are, whatever changes"
            raise FairgateError(what, where=str(root / "dvc.yaml"), remedy="take `frozen: true` out of it")
    if git_root:
        _require_inside(git_root, outputs)
    return [stage.name for stage in stages]


def _turn(stage: Any) -> tuple[bool, str]:
    """Of the stages that could run, the base is evaluated first: a model that does not fit the
    benchmarks is found before hours of quantization.
    """
    return getattr(stage, "name", "") != BASE, stage.addressing  # the stage of a .dvc file has no name


def _require_inside(git_root: Path, outputs: list[Path]) -> None:
    """Raise FairgateError if an output's folder is linked out of the git repository.

    DVC finds that only when the stage has run.
    """
    for folder in dict.fromkeys(output.parent for output in outputs):
        if not folder.resolve().is_relative_to(git_root.resolve()):
            what = f"it lies in {folder.resolve()}, outside of git repository {git_root}"
            raise FairgateError(what, where=str(folder), remedy=dvc_remedy(what))


def run_stage(
    root: Path, stage: str, *, force: bool = False, token: str = "", timeout_s: float = TIMEOUT_S, grace_s: float = GRACE_S
) -> StageResult:
    """Run `dvc repro --single-item STAGE` in its own process group, and pass its output on.

    Whatever ends this call early (Ctrl-C, SIGTERM, timeout, a killed dvc) ends the whole group:
    first SIGTERM, then SIGKILL after `grace_s`.

    Args:
        force: run the stage although DVC finds nothing changed.
        token: goes into the environment of the group, so that `stop_leftovers` finds it if this
            process is killed with `kill -9`.
        timeout_s: seconds until the stage is ended.
        grace_s: seconds between SIGTERM and SIGKILL.

    Raises:
        LockBusy: another try may succeed.
        StageBug: the stage ended with an unexpected exception.
        StageFailed: exit code, signal or timeout, with the stage's own words.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), stage]
    _tell_if_busy(root)
    lock = root / "dvc.lock"
    before = lock.read_bytes() if lock.is_file() else b""
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=root.resolve(),
        env=_environment(token),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    output = _Output(process)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise StageFailed(
            f"stage ran past its limit of {timeout_s:g} s", where=stage, remedy="raise the limit, or make the work smaller"
        ) from None
    finally:
        if process.returncode != 0:
            try:
                _stop(process, output, grace_s)
            finally:
                restore_lock(lock, before)
    output.join(grace_s)
    text = output.text()
    if process.returncode != 0:
        raise _error(stage, process.returncode, text)
    return StageResult(stage, f"Running stage '{stage}'" in text, round(time.monotonic() - started, 1))


def stop_leftovers(token: str, grace_s: float = GRACE_S) -> int:
    """End the processes that a killed release with this token left behind.

    Returns:
        how many there were; 0 on a system without /proc.
    """
    mark = f"{TOKEN}={token}".encode()
    leftovers = _marked(mark)
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        for pid in _marked(mark):
            _send(os.kill, pid, number)
        end = time.monotonic() + wait_s
        while _marked(mark) and time.monotonic() < end:
            time.sleep(0.1)
    return len(leftovers)


def _marked(mark: bytes) -> list[int]:
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                pids.append(int(entry.name))
        except OSError:  # gone, or another user's
            continue
    return pids


class _Output(threading.Thread):
    """Passes the output of a process group on, and keeps its head and tail.

    The thread ends with the last process that holds the pipe.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        assert process.stdout is not None
        self._pipe = process.stdout
        self._head = b""
        self._tail = b""
        self.start()

    def run(self) -> None:
        line = b""
        while chunk := os.read(self._pipe.fileno(), 65_536):
            room = _TAIL_BYTES - len(self._head)
            self._head += chunk[:room]
            self._tail = (self._tail + chunk[room:])[-_TAIL_BYTES:]
            # Whole lines (of a progress bar, too): a secret could lie across two chunks.
            whole, line = _split_at_last_line_end(line + chunk)
            self._pass_on(whole)
        self._pass_on(line)

    def text(self) -> str:
        return (self._head + self._tail).decode("utf-8", "replace")

    @staticmethod
    def _pass_on(said: bytes) -> None:
        # Nobody may read it any more. The pipe is drained all the same, or the stage would wait.
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(redact(said.decode("utf-8", "replace")))
            sys.stderr.flush()


def _split_at_last_line_end(said: bytes) -> tuple[bytes, bytes]:
    at = max(said.rfind(b"\n"), said.rfind(b"\r")) + 1
    return said[:at], said[at:]


def _tell_if_busy(root: Path) -> None:
    """Say that another DVC process is waited for: DVC itself waits without a word."""
    path = root / ".dvc/tmp/lock"
    if not path.is_file():
        return
    try:
        with locked(path, busy="another DVC process works in this project"):
            pass
    except LockHeld as error:
        print(f"{error.what}; waiting for it", file=sys.stderr, flush=True)


def _environment(token: str) -> dict[str, str]:
    """This process's environment with its own Python first on PATH.

    Stages are started as plain `python`.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**users_environment(), "PATH": path, "DVC_NO_ANALYTICS": "1", TOKEN: token}


def _stop(process: subprocess.Popen[bytes], output: _Output, grace_s: float) -> None:
    try:
        _send(os.killpg, process.pid, signal.SIGTERM)
        output.join(grace_s)
    finally:  # also when a second Ctrl-C cuts the grace short
        _send(os.killpg, process.pid, signal.SIGKILL)
        process.wait()


def restore_lock(lock: Path, before: bytes) -> None:
    """Put dvc.lock back if DVC was ended while it rewrote the file.

    DVC empties the file first. Left like that, it would forget every finished stage.
    """
    if not lock.is_file():
        return
    recorded, now = _recorded(before) or set(), _recorded(lock.read_bytes())
    if now is not None and recorded <= now:
        return
    if not before:
        lock.unlink()
        return
    with atomic_path(lock) as temporary:
        temporary.write_bytes(before)


def _recorded(content: bytes) -> set[str] | None:
    """Stages in the content of a dvc.lock; None means that the content is damaged."""
    try:
        return set(yaml.safe_load(content)["stages"])
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
        return None


def _send(kill: Callable[[int, int], None], pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        kill(pid, number)


def _error(stage: str, code: int, text: str) -> FairgateError:
    if any(sign in text for sign in _BUSY):
        return LockBusy("another DVC process holds the lock", where=stage, remedy="wait for it; `dvc repro` may be running in a terminal")
    if code < 0:
        return StageFailed(f"dvc was killed by {signal.Signals(-code).name}", where=stage, remedy="run again; finished stages are reused")
    # A shell that stays between DVC and the stage reports 128 + the signal's number. A shell that
    # replaced itself with the stage reports the negative number.
    exit_code = 0
    if ended := re.search(r"ERROR: failed to reproduce '.*exited with (-?\d+)$", text, flags=re.MULTILINE):
        exit_code = int(ended[1])
        number = -exit_code if exit_code < 0 else exit_code - 128
        if number in set(signal.Signals):
            remedy = "run again; finished stages are reused. SIGKILL that nobody sent is the kernel out of memory: lower batch_tokens"
            return StageFailed(f"the stage was killed by {signal.Signals(number).name}", where=stage, remedy=remedy)
    # What the stage said ends where DVC speaks, if need be in the middle of a line.
    _, own, words = text.partition("ERROR: failed to reproduce '")[0].rpartition("fairgate: error: ")
    if own:
        return (StageBug if exit_code == ExitCode.bug else StageFailed)(words.strip(), where=stage)
    if exit_code:
        last = "\n".join(words.strip().splitlines()[-8:])
        return StageFailed(last or f"the stage ended with exit code {exit_code}", where=stage)
    words = dvc_reason(text) or "\n".join(text.strip().splitlines()[:8]) or f"exit code {code}"
    return StageFailed(f"DVC failed: {words}", where=stage, remedy=dvc_remedy(words))
