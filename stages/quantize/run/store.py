"""What a quantization has finished, kept on the disk so that it outlives a kill. BlockStore is the
only door to it.

    folder/fingerprint.json     what the run depends on; a folder left by a different run is dropped
           block-0003.*         packed tensors, rows and contributions of a finished block, and the
                                state of the random generators after it
           batches.json         the size that batches were cut to when memory ran out, with notes
           state.safetensors    of learned rounding: where its steps stand
           hidden.safetensors   every batch's hidden state after a finished block, the last block
                                if there was time to write it

Every file is whole or absent. Blocks are written one after the other, while the next one is
quantized: a kill loses the block that was being quantized, and one whose file was not whole yet.
Hidden states are large and take longer to write than a fast block to quantize, so they are written
after those blocks that end while no others are being written. For the blocks after
them no data are collected again: a forward pass each is enough (`closed_form.blocks.replay`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
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
from stages.quantize.methods.base import Block, Cut, GridRecipe, Resume
from stages.quantize.methods.shared.modules import packed
from stages.quantize.run.writing import Unwanted, fetch, ready, save

_HIDDEN, _STATE, _FINGERPRINT, _CUT = "hidden.safetensors", "state.safetensors", "fingerprint.json", "batches.json"
_RANDOM = ("rng", "rng_cuda")  # beside the tensors of a block, whose names have dots


@contextmanager
def block_store(folder: Path, fingerprint: Mapping[str, Any], recipe: GridRecipe) -> Iterator[BlockStore]:
    """The store in `folder`: emptied first if a different run left it, gone after success, kept
    after any error.

    Args:
        fingerprint: what the run depends on, as JSON data.
        recipe: how finished modules are packed.
    Raises:
        LockHeld: another process works in the folder.
    """
    with locked(folder / "lock", busy="another process quantizes by this recipe"):
        with ThreadPoolExecutor(1, "blocks") as blocks, ThreadPoolExecutor(1, "hidden") as hidden:  # which end before the lock does
            _claim(folder, fingerprint)
            yield BlockStore(folder, recipe, blocks, hidden)
        _empty(folder)
        shutil.rmtree(folder)


class BlockStore:
    """Finished blocks of one quantization. Made by `block_store`, which holds the folder's lock.

    `add` returns at once and writes beside what the caller does next; an error of that is raised by
    the next call, or by `flush`.
    """

    def __init__(self, folder: Path, recipe: GridRecipe, block_writer: Executor, hidden_writer: Executor) -> None:
        self._folder, self._recipe, self._block_writer, self._hidden_writer = folder, recipe, block_writer, hidden_writer
        self._written = self._fetched = self._saved = Future[None]()
        self._written.set_result(None)
        self._hidden: list[Tensor] = []  # what is being written
        self._wanted = True

    def resume(self) -> Resume:
        """Where the run stands; sets the random generators to what they were there."""
        self.flush()
        start, hidden, path = 0, [], self._folder / _HIDDEN
        if path.is_file():
            with safe_open(path, framework="pt") as file:
                start, batches = (int(file.metadata()[key]) for key in ("start", "batches"))
                hidden = [file.get_tensor(f"hidden.{index}") for index in range(batches)]
        block = start
        while self._records_path(block).is_file():
            block += 1
        if block:
            stored = self._read(block - 1)
            torch.set_rng_state(stored["rng"])
            if torch.cuda.is_available() and "rng_cuda" in stored:  # a run on the CPU may be shown a GPU later
                torch.cuda.set_rng_state(stored["rng_cuda"])
            log.info("%s: going on with block %d, hidden states are those before block %d", self._folder, block, start)
        return Resume(block, start, hidden)

    def add(self, block: Block) -> None:
        """Keep a finished block; nobody may change its hidden states any more, and there are none
        if no later block reads them.
        """
        self._written.result()
        self._fetched.result()  # else states of three blocks would stand on the GPU
        tensors = {name: tensor for module in block.modules for name, tensor in packed(module, self._recipe).items()}
        records: dict[str, Sequence[BaseModel]] = {
            "modules": [module.row for module in block.modules],
            "contributions": [row for module in block.modules for row in module.contributions],
        }
        index, hidden = block.index, block.hidden
        random = {"rng": torch.get_rng_state()} | ({"rng_cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
        # In the order of the GPU's work, so that it may use their memory again at once.
        fetched = {name: tensor.to("cpu", non_blocking=True) for name, tensor in tensors.items()}
        done = ready([*tensors.values(), *hidden])
        self._written = self._block_writer.submit(self._write_block, index, fetched | random, records, done)
        self._wanted = bool(hidden)
        if hidden and self._saved.done():
            self._saved.result()
            self._fetched = self._hidden_writer.submit(self._fetch_hidden, hidden, done)
            self._saved = self._hidden_writer.submit(self._write_hidden, index + 1, self._written)

    def flush(self) -> None:
        """Wait until everything is written; raises the error of what could not be."""
        for task in (self._written, self._fetched, self._saved):
            task.result()
        self._hidden = []

    def packed(self, index: int) -> dict[str, Tensor]:
        """Packed tensors of a finished block, by full name."""
        return {name: tensor for name, tensor in self._read(index).items() if name not in _RANDOM}

    def save_hidden(self, start: int, hidden: Sequence[Tensor]) -> None:
        """Write the hidden states that enter block `start` at once; all blocks before it are
        stored.
        """
        tensors = {f"hidden.{number}": state for number, state in enumerate(hidden)}
        with suppress(Unwanted):
            save(self._folder / _HIDDEN, tensors, {"start": start, "batches": len(tensors)}, lambda: self._wanted)

    def cut(self) -> Cut | None:
        """How batches were cut, by this process or by one before it; None means as asked for."""
        path = self._folder / _CUT
        return Cut.model_validate(read_json(path)) if path.is_file() else None

    def save_cut(self, cut: Cut) -> None:
        """Keep the size of batches that are smaller than asked for."""
        write_json(self._folder / _CUT, cut.model_dump(mode="json"))

    def keep(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replace the state that a method's own steps go on from."""
        save(self._folder / _STATE, tensors, {"values": json.dumps(values)})

    def restored(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and values of the last state; None means there is none."""
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

    def _write_block(
        self, index: int, tensors: Mapping[str, Tensor], records: Mapping[str, Sequence[BaseModel]], done: Sequence[torch.cuda.Event]
    ) -> None:
        for event in done:
            event.synchronize()
        save(self._block_path(index), tensors)
        write_json(self._records_path(index), {key: [row.model_dump(mode="json") for row in part] for key, part in records.items()})

    def _fetch_hidden(self, hidden: Sequence[Tensor], done: Sequence[torch.cuda.Event]) -> None:
        for event in done:
            event.synchronize()
        self._hidden = fetch(hidden, self._hidden) if hidden[0].is_cuda else list(hidden)

    def _write_hidden(self, start: int, written: Future[None]) -> None:
        written.result()  # hidden states without the blocks before them would be of no use
        self.save_hidden(start, self._hidden)

    def _records(self, blocks: int, kind: str) -> Iterator[dict[str, Any]]:
        for index in range(blocks):
            yield from read_json(self._records_path(index))[kind]

    def _read(self, index: int) -> dict[str, Tensor]:
        with safe_open(self._block_path(index), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no dict)

    def _block_path(self, index: int) -> Path:
        return self._folder / f"block-{index:04d}.safetensors"

    def _records_path(self, index: int) -> Path:
        return self._block_path(index).with_suffix(".json")


def _claim(folder: Path, fingerprint: Mapping[str, Any]) -> None:
    """Drop half-written files, and all that a run with another fingerprint left."""
    for half in folder.glob(".*"):
        half.unlink()
    fingerprint = json.loads(json.dumps(fingerprint))  # as JSON gives it back, so that what is written equals what is compared
    stored = read_json(folder / _FINGERPRINT) if (folder / _FINGERPRINT).is_file() else None
    if stored == fingerprint:
        return
    if stored is not None:
        changed = sorted(key for key in {*stored, *fingerprint} if stored.get(key) != fingerprint.get(key))
        log.warning("%s: the unfinished run there differs in %s; it is dropped", folder, ", ".join(changed))
    _empty(folder)
    write_json(folder / _FINGERPRINT, fingerprint)


def _empty(folder: Path) -> None:
    """Delete the fingerprint first: if we are killed half-way, no later run will trust the
    leftovers.
    """
    (folder / _FINGERPRINT).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name != "lock":
            path.unlink()
