"""A quantization that outlives a kill: finished blocks and the hidden states after the last one, bound to what they were made from.

    folder/fingerprint.json     what the run depends on; a folder of another run is never gone on with
           block-0003.*         packed tensors, rows and contributions of a finished block
           batches.json         the size that batches were cut down to when memory ran out, and what was noted of it
           state.safetensors    of learned rounding: where its steps stand
           hidden.safetensors   every batch's hidden state after the last finished block, and the state of the random generators

Every file is whole or absent, and hidden.safetensors is replaced last: what a kill loses is the block that it fell into.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from stages.common.cli import log
from stages.common.contributions import Contribution
from stages.common.errors import FairgateError
from stages.common.files import atomic_path, read_json, write_json
from stages.common.params import Section
from stages.common.records import ModuleRow

_HIDDEN, _STATE, _FINGERPRINT, _BATCHES = "hidden.safetensors", "state.safetensors", "fingerprint.json", "batches.json"


class Batches(Section):
    """Batches smaller than asked for: at most `tokens` token slots, and why, a note for every cut."""

    tokens: int
    notes: list[str]


class Progress:
    """What is done of one quantization. Made by `progress`, which holds the folder's lock."""

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self._folder = folder
        stored = read_json(folder / _FINGERPRINT) if (folder / _FINGERPRINT).is_file() else None
        if stored != fingerprint:
            if stored is not None:
                other = sorted(key for key in {*stored, *fingerprint} if stored.get(key) != fingerprint.get(key))
                log.warning("%s: the unfinished run there differs in %s; it is dropped", folder, ", ".join(other))
            _empty(folder)
            write_json(folder / _FINGERPRINT, fingerprint)

    def resume(self) -> tuple[int, list[Tensor]]:
        """The first block that is not done and the hidden states before it (none for block 0); sets the random generators."""
        path = self._folder / _HIDDEN
        if not path.is_file():
            return 0, []
        with safe_open(path, framework="pt") as file:
            start, batches = (int(file.metadata()[key]) for key in ("start", "batches"))
            torch.set_rng_state(file.get_tensor("rng"))
            if torch.cuda.is_available():
                torch.cuda.set_rng_state(file.get_tensor("rng_cuda"))
            hidden = [file.get_tensor(f"hidden.{index}") for index in range(batches)]
        log.info("%s: going on with block %d", self._folder, start)
        return start, hidden

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
        """Store finished block `index`."""
        _save(dict(tensors), self._block(index))
        records = {"modules": rows, "contributions": contributions}
        write_json(
            self._block(index).with_suffix(".json"), {key: [row.model_dump(mode="json") for row in part] for key, part in records.items()}
        )
        state = {f"hidden.{number}": state.contiguous() for number, state in enumerate(hidden)} | {"rng": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["rng_cuda"] = torch.cuda.get_rng_state()
        _save(state, self._folder / _HIDDEN, start=index + 1, batches=len(hidden))

    def keep(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replace the state that learned rounding goes on from."""
        _save(dict(tensors), self._folder / _STATE, values=json.dumps(values))

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
            with safe_open(self._block(index), framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  (safe_open is no dict)
                    yield name, file.get_tensor(name)

    def _records(self, blocks: int, kind: str) -> Iterator[dict[str, Any]]:
        for index in range(blocks):
            yield from read_json(self._block(index).with_suffix(".json"))[kind]

    def _block(self, index: int) -> Path:
        return self._folder / f"block-{index:04d}.safetensors"


@contextmanager
def progress(folder: Path, fingerprint: Mapping[str, Any]) -> Iterator[Progress]:
    """The progress kept in `folder`, begun anew where it is of another run; gone after success, kept after any error.

    Raises: FairgateError where another process works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FairgateError("another process quantizes by this recipe", where=str(folder), remedy="wait for it, or end it") from None
        # As JSON gives it back, so that what is written equals what is compared.
        yield Progress(folder, json.loads(json.dumps(fingerprint)))
        shutil.rmtree(folder)


def _save(tensors: dict[str, Tensor], path: Path, **metadata: int | str) -> None:
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {key: str(value) for key, value in metadata.items()})


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "lock":
            path.unlink()
