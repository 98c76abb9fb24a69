"""A quantization that outlives a kill: finished blocks and the hidden states after one of them, bound to what they were made from.

    folder/fingerprint.json     what the run depends on; a folder of another run is never gone on with
           block-0003.*         packed tensors, rows and contributions of a finished block, and the state of the random generators after it
           batches.json         the size that batches were cut down to when memory ran out, and what was noted of it
           state.safetensors    of learned rounding: where its steps stand
           hidden.safetensors   every batch's hidden state after a finished block, the last one if there was time to write it

Every file is whole or absent. Blocks are written one behind the other, beside the work on the next: what a kill loses is the block that it
fell into, and one whose file was not whole yet. Hidden states are large and take longer to write than a fast block to quantize, so they are
written after the blocks that end while no others are on their way. The blocks behind them need no data to be gone through again, only a
forward pass each (`methods.replay`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import safe_open
from torch import Tensor

from fairgate.contracts.contributions import Contribution
from fairgate.contracts.records import ModuleRow
from fairgate.support.files import read_json, write_json
from fairgate.support.locks import locked
from fairgate.support.log import log
from fairgate.support.params import Section
from stages.quantize.run.saving import Unwanted, fetch, ready, save

_HIDDEN, _STATE, _FINGERPRINT, _BATCHES = "hidden.safetensors", "state.safetensors", "fingerprint.json", "batches.json"
_RANDOM = ("rng", "rng_cuda")  # beside the tensors of a block, whose names have dots


class Batches(Section):
    """Batches smaller than asked for: at most `tokens` token slots, and why, a note for every cut."""

    tokens: int
    notes: list[str]


@dataclass(frozen=True)
class Reached:
    """Where a run goes on: with `block`. hidden: one [rows, L, d] a batch, those before block `start` <= `block`; none: the embeddings."""

    block: int
    start: int
    hidden: list[Tensor]


class Progress:
    """What is done of one quantization. Made by `progress`, which holds the folder's lock."""

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], block_writer: Executor, hidden_writer: Executor) -> None:
        self._folder, self._block_writer, self._hidden_writer = folder, block_writer, hidden_writer
        self._written = self._fetched = self._saved = Future[None]()
        self._written.set_result(None)
        self._hidden: list[Tensor] = []  # what is being written
        self._wanted = True
        for half in folder.glob(".*"):
            half.unlink()
        stored = read_json(folder / _FINGERPRINT) if (folder / _FINGERPRINT).is_file() else None
        if stored != fingerprint:
            if stored is not None:
                other = sorted(key for key in {*stored, *fingerprint} if stored.get(key) != fingerprint.get(key))
                log.warning("%s: the unfinished run there differs in %s; it is dropped", folder, ", ".join(other))
            _empty(folder)
            write_json(folder / _FINGERPRINT, fingerprint)

    def resume(self) -> Reached:
        """Where the run stands; sets the random generators to what they were there."""
        self.flush()
        start, hidden, path = 0, [], self._folder / _HIDDEN
        if path.is_file():
            with safe_open(path, framework="pt") as file:
                start, batches = (int(file.metadata()[key]) for key in ("start", "batches"))
                hidden = [file.get_tensor(f"hidden.{index}") for index in range(batches)]
        block = start
        while self._records_of(block).is_file():
            block += 1
        if block:
            found = self._read(block - 1)
            torch.set_rng_state(found["rng"])
            if torch.cuda.is_available() and "rng_cuda" in found:  # a run on the CPU may be shown a GPU later
                torch.cuda.set_rng_state(found["rng_cuda"])
            log.info("%s: going on with block %d, hidden states are those before block %d", self._folder, block, start)
        return Reached(block, start, hidden)

    def batches(self) -> Batches | None:
        """How batches were cut down, by this process or by one before it; None if they were not."""
        path = self._folder / _BATCHES
        return Batches.model_validate(read_json(path)) if path.is_file() else None

    def cut(self, batches: Batches) -> None:
        """Keep the size of batches that are smaller than asked for."""
        write_json(self._folder / _BATCHES, batches.model_dump(mode="json"))

    def add(
        self,
        index: int,
        tensors: Mapping[str, Tensor],
        rows: Sequence[ModuleRow],
        contributions: Sequence[Contribution],
        hidden: Sequence[Tensor],
    ) -> None:
        """Store finished block `index`, beside what the caller does next; an error there is raised by the next call, or by `flush`.

        Args:
            hidden: the hidden states after it, which nobody changes any more; none if no block needs them.
        """
        self._written.result()
        self._fetched.result()  # else states of three blocks would stand on the GPU
        random = {"rng": torch.get_rng_state()} | ({"rng_cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
        # In the order of the GPU's work, so that it may use their memory again at once.
        fetched = {name: tensor.to("cpu", non_blocking=True) for name, tensor in tensors.items()}
        records = {"modules": rows, "contributions": contributions}
        done = ready([*tensors.values(), *hidden])
        self._written = self._block_writer.submit(self._write, index, fetched | random, records, done)
        self._wanted = bool(hidden)
        if hidden and self._saved.done():
            self._saved.result()
            self._fetched = self._hidden_writer.submit(self._fetch, hidden, done)
            self._saved = self._hidden_writer.submit(self._save, index + 1, self._written)

    def save_hidden(self, start: int, hidden: Sequence[Tensor]) -> None:
        """Write the hidden states before block `start` at once; all blocks before it are stored."""
        tensors = {f"hidden.{number}": state for number, state in enumerate(hidden)}
        with suppress(Unwanted):
            save(self._folder / _HIDDEN, tensors, {"start": start, "batches": len(tensors)}, lambda: self._wanted)

    def flush(self) -> None:
        """Wait until all is written; raises the error of what could not be."""
        for task in (self._written, self._fetched, self._saved):
            task.result()
        self._hidden = []

    def _write(
        self, index: int, tensors: Mapping[str, Tensor], records: Mapping[str, Sequence[BaseModel]], done: Sequence[torch.cuda.Event]
    ) -> None:
        for event in done:
            event.synchronize()
        save(self._block(index), tensors)
        write_json(self._records_of(index), {key: [row.model_dump(mode="json") for row in part] for key, part in records.items()})

    def _fetch(self, hidden: Sequence[Tensor], done: Sequence[torch.cuda.Event]) -> None:
        for event in done:
            event.synchronize()
        self._hidden = fetch(hidden, self._hidden) if hidden[0].is_cuda else list(hidden)

    def _save(self, start: int, written: Future[None]) -> None:
        written.result()  # hidden states without the blocks before them would be of no use
        self.save_hidden(start, self._hidden)

    def keep(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replace the state that learned rounding goes on from."""
        save(self._folder / _STATE, tensors, {"values": json.dumps(values)})

    def kept(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and values of the last state; None where there is none."""
        path = self._folder / _STATE
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            values: dict[str, Any] = json.loads(file.metadata()["values"])
            return {name: file.get_tensor(name) for name in file.keys()}, values  # noqa: SIM118  (safe_open is no dict)

    def rows(self, blocks: int) -> list[ModuleRow]:
        """Rows of all blocks, in order."""
        return [ModuleRow.model_validate(row) for row in self._records(blocks, "modules")]

    def contributions(self, blocks: int) -> list[Contribution]:
        """Rows of `contributions.csv` of all blocks, in order."""
        return [Contribution.model_validate(row) for row in self._records(blocks, "contributions")]

    def tensors(self, blocks: int) -> Iterator[tuple[str, Tensor]]:
        """Packed tensors of all blocks."""
        for index in range(blocks):
            yield from self.packed(index).items()

    def packed(self, index: int) -> dict[str, Tensor]:
        """Packed tensors of a finished block."""
        return {name: tensor for name, tensor in self._read(index).items() if name not in _RANDOM}

    def _records(self, blocks: int, kind: str) -> Iterator[dict[str, Any]]:
        for index in range(blocks):
            yield from read_json(self._records_of(index))[kind]

    def _read(self, index: int) -> dict[str, Tensor]:
        with safe_open(self._block(index), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no dict)

    def _block(self, index: int) -> Path:
        return self._folder / f"block-{index:04d}.safetensors"

    def _records_of(self, index: int) -> Path:
        return self._block(index).with_suffix(".json")


@contextmanager
def progress(folder: Path, fingerprint: Mapping[str, Any]) -> Iterator[Progress]:
    """The progress kept in `folder`, begun anew where it is of another run; gone after success, kept after any error.

    Raises: LockHeld where another process works in it.
    """
    with locked(folder / "lock", busy="another process quantizes by this recipe"):
        with ThreadPoolExecutor(1, "blocks") as blocks, ThreadPoolExecutor(1, "hidden") as hidden:  # which end before the lock does
            # As JSON gives it back, so that what is written equals what is compared.
            yield Progress(folder, json.loads(json.dumps(fingerprint)), blocks, hidden)
        _empty(folder)
        shutil.rmtree(folder)


def _empty(folder: Path) -> None:
    """The fingerprint goes first: what a kill leaves of the rest is nobody's then."""
    (folder / _FINGERPRINT).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name != "lock":
            path.unlink()
