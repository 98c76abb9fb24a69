"""One case: a number, from which everything else follows."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.fuzz_inputs import data_files, model_folders, params_files
from benchmarks.fuzz_inputs.outcome import Outcome, failure, refused
from fairgate.support.errors import FairgateError


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    share: of the cases. make: writes sound inputs into a folder, once. spoil: writes a mutated one
    into another folder and says what was done. judge: uses it, with a folder for what it writes.
    """

    share: float
    make: Callable[[Path], None]
    spoil: Callable[[Path, Path, Random], list[str]]
    judge: Callable[[Path, Path], Outcome]


KINDS = {
    "model folder": Kind(0.6, model_folders.make, model_folders.spoil, model_folders.judge),
    "params file": Kind(0.2, params_files.make, params_files.spoil, params_files.judge),
    "data file": Kind(0.2, data_files.make, data_files.spoil, data_files.judge),
}


@dataclass(frozen=True)
class Case:
    """What became of one case. steps: how the input was mutated."""

    number: int
    kind: str
    steps: list[str]
    outcome: Outcome


def run_case(number: int, workspace: Path) -> Case:
    """Make the input of a case and judge it.

    Args:
        number: the case.
        workspace: an existing folder, which keeps the sound inputs for the next case.
    """
    rng = Random(number)
    name = rng.choices(list(KINDS), [kind.share for kind in KINDS.values()])[0]
    kind, sound = KINDS[name], _sound(workspace, name)
    given, work = workspace / "input", workspace / "work"
    for folder in (given, work):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    if not sound.is_dir():
        _make(kind, sound)
    steps = kind.spoil(sound, given, rng)
    with contextlib.chdir(work), _silence():
        return Case(number, name, steps, _judged(kind, given, work))


def make_sound(workspace: Path) -> None:
    """Make the sound inputs of every kind beforehand: a case then takes its own time alone."""
    for name, kind in KINDS.items():
        _make(kind, _sound(workspace, name))


def _sound(workspace: Path, name: str) -> Path:
    return workspace / "sound" / name.replace(" ", "_")


def _make(kind: Kind, sound: Path) -> None:
    sound.mkdir(parents=True)
    with _silence():
        kind.make(sound)


def _judged(kind: Kind, given: Path, work: Path) -> Outcome:
    try:
        return kind.judge(given, work)
    except FairgateError as error:
        return refused(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a Rust library and an exit are failures too
        return failure(error)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
