"""Out of memory: smaller batches instead of a lost run."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from fairgate.support.devices import out_of_memory
from fairgate.support.errors import FairgateError
from fairgate.support.log import log
from stages.quantize.core.compute import Compute
from stages.quantize.core.pairs import Batch
from stages.quantize.methods.base import Block, Cut, Resume, Store
from stages.quantize.methods.closed_form.blocks import replay
from stages.quantize.methods.closed_form.calibration import Calibration
from stages.quantize.methods.closed_form.recipe import CalibratedRecipe
from stages.quantize.model.streamed import Streamed

# Quantizes the blocks from a number on, from the hidden states that enter it.
Blocks = Callable[[Compute, Calibration, int, Sequence[Tensor]], Iterator[Block]]


class Quantizer:
    """Quantizes all blocks that a store does not hold, in as much memory as there is.

    Args:
        blocks: the method's own way through the model.
        store: what is finished, and takes what becomes finished.
    """

    def __init__(self, blocks: Blocks, recipe: CalibratedRecipe, source: Streamed, store: Store) -> None:
        self._blocks, self._recipe, self._source, self._store = blocks, recipe, source, store

    def run(self, compute: Compute, data: Calibration) -> None:
        """Quantize and store every block.

        When memory runs out, batches are halved and every batch runs the block alone
        (`low_memory`), from the last finished block on.

        Args:
            data: the batches as asked for.
        Raises:
            FairgateError: no batch can be smaller.
        """
        while True:
            if cut := self._store.cut():
                data, compute = _rebatched(data, cut.tokens), replace(compute, low_memory=True)
            reached = self.blocks(compute, data)
            if reached == len(self._source.blocks):
                return
            # Not where the error was caught: its frames held the tensors that there was no room
            # for.
            gc.collect()
            torch.cuda.empty_cache()
            self._halve(compute, data, f"{self._source.architecture.blocks}.{reached}", cut.notes if cut else [])

    def blocks(self, compute: Compute, data: Calibration) -> int:
        """Quantize and store blocks from the first unfinished one; returns how many are finished,
        fewer than all if memory ran out.
        """
        resume, last = self._store.resume(), len(self._source.blocks) - 1
        reached = resume.block
        try:
            with until_out_of_memory():
                hidden = self._hidden(compute, data, resume)
                blocks = self._blocks(compute, data, reached, hidden)
                del resume, hidden  # the states keep the file that they were read from on the disk
                for block in blocks:
                    self._store.add(block if block.index < last else replace(block, hidden=[]))
                    reached = block.index + 1
                    del block  # its hidden states are the next block's input, and make room batch by batch for its output
        finally:
            self._store.flush()
        return reached

    def _halve(self, compute: Compute, data: Calibration, where: str, notes: Sequence[str]) -> None:
        """Store a cut to half the batches' size, and the hidden states that were made before it."""
        tokens = largest_batch(data.batches)
        halved = max(tokens // 2, 1)
        if tokens == 0 or (compute.low_memory and largest_batch(_rebatched(data, halved).batches) >= tokens):
            raise FairgateError(
                f"out of memory, and no batch can be smaller ({tokens} token slots in the largest)",
                where=where,
                remedy="end what else needs memory, use `quantize.device: cpu` or a larger machine, or shorten `calibrate.text_words`",
            )
        note = f"out of memory at {where}: batches cut from {tokens} to {halved} token slots, each run alone from there on"
        log.warning(note)
        self._bring_hidden(replace(compute, low_memory=True), data)
        self._store.save_cut(Cut(tokens=halved, notes=[*notes, note]))

    def _bring_hidden(self, compute: Compute, data: Calibration) -> None:
        """Before batches are cut: finished blocks ran on the batches as they are, so the hidden
        states do too if there is room.
        """
        resume = self._store.resume()
        if resume.start < resume.block:
            with until_out_of_memory():
                self._store.save_hidden(resume.block, self._hidden(compute, data, resume))

    def _hidden(self, compute: Compute, data: Calibration, resume: Resume) -> list[Tensor]:
        """The hidden states that enter the first unfinished block: the stored ones, run through the
        blocks finished since.
        """
        hidden = rebatch(resume.hidden, data.batches)
        if resume.block in (resume.start, len(self._source.blocks)):
            return hidden
        finished = range(resume.start, resume.block)
        return replay(self._source, self._recipe, data, compute, finished, hidden, self._store.packed)


@contextmanager
def until_out_of_memory() -> Iterator[None]:
    """Ends what is done in it where memory runs out, without an error."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise


def largest_batch(batches: Sequence[Batch]) -> int:
    """Token slots of the largest batch."""
    return max((batch.ids.numel() for batch in batches), default=0)


def rebatch(hidden: Sequence[Tensor], batches: Sequence[Batch]) -> list[Tensor]:
    """Hidden states of the same sentences, cut into other batches.

    Batches of any size hold the sentences in one order (by length), so rows are dealt out again;
    only pads are dropped or added.

    Args:
        hidden: [rows, L, d] for every old batch, or none.
        batches: the new ones.
    """
    if not hidden or [state.shape[:2] for state in hidden] == [batch.ids.shape for batch in batches]:
        return list(hidden)
    rows = iter([row for state in hidden for row in state])
    rebatched = []
    for batch in batches:
        count, length = batch.ids.shape
        state = hidden[0].new_zeros(count, length, hidden[0].shape[-1])
        for at in range(count):
            row = next(rows)[:length]
            state[at, : len(row)] = row
        rebatched.append(state)
    return rebatched


def _rebatched(data: Calibration, tokens: int) -> Calibration:
    return data if data.rebatch is None else data.rebatch(tokens)
