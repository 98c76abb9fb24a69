"""Kill -9 at any point loses at most one block, and what is made after it equals what an
undisturbed run makes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from fairgate.contracts.records import Quantization
from fairgate.support.digests import sha256_folder
from fairgate.support.errors import FairgateError
from fairgate.support.params import parse
from stages.quantize import stage
from stages.quantize.methods.base import Block, Resume
from stages.quantize.methods.closed_form import blocks
from stages.quantize.methods.fair_gptq import FairGptq
from stages.quantize.methods.rtn import Rtn
from stages.quantize.run import store
from stages.quantize.run.store import BlockStore, block_store
from stages.quantize.settings import RunSettings
from stages.quantize.stage import quantize
from tests.tiny import make_tiny_llama

LAYERS = 3
RTN = Rtn(method="rtn", bits=4, group_size=32, symmetric=True)
RECIPE = {"method": "fair_gptq", "bits": 4, "group_size": 32, "symmetric": True, "alpha": 0.5}


def run(base: Path, calibration: Path, folder: Path, **changes: Any) -> Quantization:
    recipe = parse(FairGptq, {**RECIPE, **changes}, where="test")
    return quantize("test", recipe, RunSettings(device="cpu", seed=0, batch_tokens=256), base, calibration, folder / "out", folder / "work")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("base"), layers=LAYERS)


@pytest.fixture(scope="module")
def undisturbed(base: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(base, calibration, folder)
    return sha256_folder(folder / "out")


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks that are quantized, in order."""
    return _noted("quantize_block", monkeypatch)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The finished blocks that are run through again, in order."""
    return _noted("forward_finished", monkeypatch)


def _noted(name: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    own = getattr(blocks, name)

    def note(block: Any, index: int, *rest: Any, **more: Any) -> Any:
        found.append(index)
        return own(block, index, *rest, **more)

    monkeypatch.setattr(blocks, name, note)
    return found


@pytest.mark.parametrize(
    ("where", "when", "states", "left", "again"),
    [
        ("block 0", "before", 1, [0, 1, 2], []),  # block 0 is done, nothing of it is on the disk
        ("block 0", "middle", 1, [0, 1, 2], []),
        ("block 0", "after", 1, [0, 1, 2], []),  # its tensors are, its records are not
        ("states 1", "before", 1, [1, 2], [0]),  # the block is, its hidden states are not
        ("states 1", "middle", 1, [1, 2], [0]),
        ("states 1", "after", 1, [1, 2], []),
        ("block 2", "before", 0, [2], [0, 1]),  # a disk so slow that no hidden states were written
        ("block 2", "before", 1, [2], [1]),
        ("block 2", "before", 2, [2], []),
        ("states 2", "middle", 2, [2], [1]),
        ("checkpoint", "before", 1, [], []),  # every block is done, no checkpoint is
    ],
)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    where: str,
    when: str,
    states: int,
    left: list[int],
    again: list[int],
    base: Path,
    calibration: Path,
    tmp_path: Path,
    undisturbed: str,
    walked: list[int],
    replayed: list[int],
) -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.stages.quantize.run.test_store import kill_at, run\n"
        f"kill_at({where!r}, {when!r}, {states}, Path({str(tmp_path / 'work')!r}))\n"
        f"run(Path({str(base)!r}), Path({str(calibration)!r}), Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[4], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "out").exists()
    run(base, calibration, tmp_path)
    assert (walked, replayed) == (left, again)
    assert sha256_folder(tmp_path / "out") == undisturbed
    assert not (tmp_path / "work").exists()


def kill_at(where: str, when: str, states: int, work: Path) -> None:
    """End this process by SIGKILL before, in the middle of, or after a write: of `block n`, the
    `states n` before it, the `checkpoint`.

    Hidden states before blocks up to `states` are whole when those blocks are done, later ones take
    for ever.
    """
    own, own_add = store.save, BlockStore.add

    def save(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, int] | None = None, *wanted: Any) -> None:
        start = (metadata or {}).get("start")
        while start is not None and start > states and wanted[0]():
            time.sleep(0.01)
        reached = where == (f"block {int(path.stem[6:])}" if start is None else f"states {start}")
        if not reached or when == "after":
            own(path, tensors, metadata, *wanted)
        elif when == "middle":
            path.with_name(f".{path.name}.half").write_bytes(b"{}" * 100)
        if reached:
            os.kill(os.getpid(), signal.SIGKILL)

    def add(self: BlockStore, block: Block) -> None:
        while _start(work) < min(block.index, states):
            time.sleep(0.01)
        own_add(self, block)

    store.save, BlockStore.add = save, add  # type: ignore[assignment, method-assign]
    if where == "checkpoint":
        stage.write_checkpoint = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]


def _start(work: Path) -> int:
    """The block that the written hidden states stand before."""
    if not (path := work / "hidden.safetensors").exists():
        return 0
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["start"])


def test_a_block_that_could_not_be_written_stops_the_run_and_is_done_again(
    base: Path, calibration: Path, tmp_path: Path, undisturbed: str, walked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *rest: Any) -> None:
        if path.name == "block-0001.safetensors":
            raise OSError(28, "No space left on device")
        own(path, *rest)

    own = store.save
    with monkeypatch.context() as patch:
        patch.setattr(store, "save", full)
        with pytest.raises(OSError, match="No space left"):
            run(base, calibration, tmp_path)
    assert _start(tmp_path / "work") == 1  # hidden states without the blocks before them would be of no use
    walked.clear()
    run(base, calibration, tmp_path)
    assert walked == [1, 2]
    assert sha256_folder(tmp_path / "out") == undisturbed


@pytest.fixture
def half_done(base: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one finished block."""

    def interrupt(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    own = blocks.quantize_block
    with monkeypatch.context() as patch:
        patch.setattr(
            blocks, "quantize_block", lambda block, index, *rest, **more: (interrupt if index else own)(block, index, *rest, **more)
        )
        with pytest.raises(KeyboardInterrupt):
            run(base, calibration, tmp_path)
    yield tmp_path


def test_what_a_run_went_on_from_is_dropped_once_it_is_used(
    half_done: Path, base: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states are pages of the file that they were read from: as long as one of them is held,
    its space is not given back.
    """
    held: list[weakref.ref[torch.Tensor]] = []
    alive: dict[int, int] = {}
    own_resume, own_block = BlockStore.resume, blocks.quantize_block

    def noted(self: BlockStore) -> Resume:
        found = own_resume(self)
        held.extend(map(weakref.ref, found.hidden))
        return found

    def counted(replicas: Any, index: int, *rest: Any, **more: Any) -> None:
        alive[index] = sum(state() is not None for state in held)
        own_block(replicas, index, *rest, **more)

    monkeypatch.setattr(BlockStore, "resume", noted)
    monkeypatch.setattr(blocks, "quantize_block", counted)
    run(base, calibration, half_done)
    assert alive == {1: len(held), 2: 0}
    assert held


def test_progress_of_another_recipe_is_not_gone_on_with(
    half_done: Path, base: Path, calibration: Path, tmp_path: Path, walked: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    other = run(base, calibration, half_done, alpha=0.1)
    assert walked == [0, 1, 2]
    assert "differs in recipe; it is dropped" in caplog.text
    fresh = run(base, calibration, tmp_path / "fresh", alpha=0.1)
    assert other.weight_digest == fresh.weight_digest


def test_progress_on_other_data_is_not_gone_on_with(
    half_done: Path, base: Path, calibration: Path, tmp_path: Path, walked: list[int]
) -> None:
    changed = shutil.copytree(calibration, tmp_path / "calibration")
    lines = (changed / "pairs.jsonl").read_text().splitlines()
    (changed / "pairs.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    run(base, changed, half_done)
    assert walked == [0, 1, 2]


def test_two_runs_of_one_recipe_do_not_share_a_folder(tmp_path: Path) -> None:
    with block_store(tmp_path / "work", {}, RTN), pytest.raises(FairgateError, match="another process quantizes by this recipe"):  # noqa: SIM117
        with block_store(tmp_path / "work", {}, RTN):
            pass


def test_a_folder_is_held_until_nothing_is_written_there_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = store.save

    def slow(path: Path, *rest: Any) -> None:
        if path.name == "block-0001.safetensors":
            raise OSError(28, "No space left on device")
        if path.name == "hidden.safetensors":
            time.sleep(0.3)
        own(path, *rest)

    monkeypatch.setattr(store, "save", slow)
    with pytest.raises(OSError, match="No space left"), block_store(tmp_path / "work", {}, RTN) as done:
        for index in range(2):
            done.add(Block(index, [], [torch.ones(1, 1, 1)]))
        done.flush()
    assert _start(tmp_path / "work") == 1


def test_what_was_begun_without_a_gpu_goes_on_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), block_store(tmp_path / "work", {}, RTN) as done:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        done.add(Block(0, []))
        raise KeyboardInterrupt
    with block_store(tmp_path / "work", {}, RTN) as done:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert done.resume().block == 1


def test_a_folder_that_is_given_up_loses_its_fingerprint_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a kill while its files go would leave some of them, to be gone on with."""
    gone: list[str] = []
    own = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if not self.name.startswith("."):
            gone.append(self.name)
        own(self, missing_ok)

    with pytest.raises(KeyboardInterrupt), block_store(tmp_path / "work", {"a": 0}, RTN) as done:
        done.save_hidden(0, [])
        raise KeyboardInterrupt
    monkeypatch.setattr(Path, "unlink", unlink)
    with block_store(tmp_path / "work", {"a": 1}, RTN) as done:
        done.save_hidden(0, [])
    assert gone == ["fingerprint.json", "hidden.safetensors"] * 2


def test_nearest_rounding_goes_on_too(base: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RTN
    settings = RunSettings(device="cpu", seed=0, batch_tokens=256)
    whole = quantize("test", recipe, settings, base, calibration, tmp_path / "whole", tmp_path / "work")
    with monkeypatch.context() as patch:
        patch.setattr("stages.quantize.stage.write_checkpoint", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            quantize("test", recipe, settings, base, calibration, tmp_path / "out", tmp_path / "work")
    assert quantize("test", recipe, settings, base, calibration, tmp_path / "out", tmp_path / "work") == whole
