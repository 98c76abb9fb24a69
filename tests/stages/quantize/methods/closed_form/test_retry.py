"""Out of memory: batches are halved, finished blocks are kept, and the record says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from fairgate.contracts.records import Pair, Text, read_records
from fairgate.support.errors import FairgateError
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import Batch, encode_pairs, encode_texts, pair_batches, text_batches
from stages.quantize.methods.closed_form.retry import largest_batch, rebatch
from stages.quantize.model import calibration_pass
from stages.quantize.model.calibration_pass import BlockInput, embed, forward
from stages.quantize.model.streamed import Streamed
from stages.quantize.run.store import BlockStore
from tests.stages.quantize.model.test_calibration_pass import CPU, LLAMA
from tests.stages.quantize.run.test_store import run, walked
from tests.tiny import make_tiny_llama

__all__ = ["walked"]  # a fixture

add = BlockStore.add
Plant = Callable[[Callable[[int, BlockInput], bool]], None]


def _batches(llama: Path, calibration: Path, slots: int) -> list[Batch]:
    tokenizer = AutoTokenizer.from_pretrained(llama)
    pairs = encode_pairs(read_records(Pair, calibration / "pairs.jsonl"), tokenizer, Alignment.aligned, "bias_type")
    texts = encode_texts(read_records(Text, calibration / "text.jsonl"), tokenizer)
    return [*pair_batches(pairs, Alignment.aligned, 0, slots, {"a": 0, "b": 1}), *text_batches(texts, 0, slots)]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Lets the forward pass of a block fail where `when(block, block_input)` says so."""

    def install(when: Callable[[int, BlockInput], bool]) -> None:
        def limited(block: nn.Module, block_input: BlockInput, index: int) -> Tensor:
            if when(index, block_input):
                raise torch.OutOfMemoryError("CUDA out of memory (planted)")
            return forward(block, block_input, index)

        monkeypatch.setattr(calibration_pass, "forward", limited)

    return install


@torch.no_grad()
@pytest.mark.parametrize(("before", "after"), [(512, 64), (64, 512), (200, 90)])
def test_hidden_states_follow_their_sentences_into_other_batches(before: int, after: int, llama: Path, calibration: Path) -> None:
    source = Streamed(llama, LLAMA)
    old, new = (embed(source, _batches(llama, calibration, slots), CPU) for slots in (before, after))
    assert len(old) != len(new)
    with source.loaded_block(0, CPU) as block:
        outputs, expected = ([forward(block, block_input, 0) for block_input in part] for part in (old, new))
    for state, reference, block_input in zip(rebatch(outputs, [a.batch for a in new]), expected, new, strict=True):
        assert state.shape == reference.shape
        assert torch.allclose(state[block_input.batch.mask], reference[block_input.batch.mask], atol=1e-5)


def test_out_of_memory_halves_the_batches_and_goes_on_behind_the_finished_blocks(
    llama: Path, calibration: Path, tmp_path: Path, plant: Plant, walked: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(llama, calibration, tmp_path / "whole")
    walked.clear()
    largest = largest_batch(_batches(llama, calibration, 256))
    plant(lambda index, block_input: index == 1 and block_input.batch.ids.numel() > largest // 2)
    cut = run(llama, calibration, tmp_path / "cut")
    assert walked == [0, 1, 1]  # block 0 is not run again
    note = f"out of memory at model.layers.1: batches cut from {largest} to {largest // 2} token slots, each run alone from there on"
    assert [n for n in cut.notes if n not in whole.notes] == [note]
    assert note in caplog.text
    assert (cut.tokens, cut.pairs) == (whole.tokens, whole.pairs)
    assert _agreement(tmp_path / "whole" / "out", tmp_path / "cut" / "out") > 0.999
    assert not (tmp_path / "cut" / "work").exists()


def test_hidden_states_are_made_in_the_batches_as_they_were_before_the_cut(
    calibration: Path, tmp_path: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out behind two blocks: with hidden states of both on the disk, and with none, the
    same weights come out.
    """
    base = make_tiny_llama(tmp_path / "base", layers=3)
    largest = largest_batch(_batches(base, calibration, 256))
    plant(lambda index, block_input: index == 2 and block_input.batch.ids.numel() > largest // 2)
    own = BlockStore.save_hidden
    starts: list[int] = []

    def at_once(self: BlockStore, start: int, hidden: Sequence[Tensor]) -> None:
        starts.append(start)
        own(self, start, hidden)

    with monkeypatch.context() as patch:
        patch.setattr(BlockStore, "_write_hidden", lambda self, start, written: at_once(self, start, self._hidden))
        patch.setattr(BlockStore, "add", lambda self, block: (add(self, block), self.flush()))
        whole = run(base, calibration, tmp_path / "whole")
    assert starts == [1, 2]
    starts.clear()
    monkeypatch.setattr(BlockStore, "_write_hidden", lambda self, start, written: None)
    monkeypatch.setattr(BlockStore, "save_hidden", at_once)
    slow = run(base, calibration, tmp_path / "slow")
    assert starts == [2]
    assert slow.weight_digest == whole.weight_digest


def test_hidden_states_that_there_is_no_room_for_as_they_were_are_made_in_smaller_batches(
    calibration: Path, tmp_path: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others take memory behind block 1: from then on no large batch runs through any block."""
    base = make_tiny_llama(tmp_path / "base", layers=3)
    whole = run(base, calibration, tmp_path / "whole")
    largest = largest_batch(_batches(base, calibration, 256))
    reached: set[int] = set()
    plant(lambda index, block_input: reached.add(index) is None and 2 in reached and block_input.batch.ids.numel() > largest // 2)
    monkeypatch.setattr(BlockStore, "_write_hidden", lambda self, start, written: None)
    cut = run(base, calibration, tmp_path / "cut")
    assert len(cut.notes) == len(whole.notes) + 1
    assert _agreement(tmp_path / "whole" / "out", tmp_path / "cut" / "out") > 0.99


def test_the_cut_outlives_a_kill(llama: Path, calibration: Path, tmp_path: Path, plant: Plant) -> None:
    sizes: list[int] = []
    largest = largest_batch(_batches(llama, calibration, 256))

    def when(index: int, block_input: BlockInput) -> bool:
        slots = block_input.batch.ids.numel()
        if index == 1 and slots <= largest // 2:
            raise KeyboardInterrupt
        return index == 1

    plant(when)
    with pytest.raises(KeyboardInterrupt):
        run(llama, calibration, tmp_path)
    plant(lambda index, block_input: bool(sizes.append(block_input.batch.ids.numel())))
    assert any("out of memory" in note for note in run(llama, calibration, tmp_path).notes)
    assert max(sizes) <= largest // 2


@pytest.mark.parametrize("method", ["fair_gptq", "gptq"])
def test_memory_that_is_too_small_for_one_sentence_is_an_error(
    method: str, llama: Path, calibration: Path, tmp_path: Path, plant: Plant
) -> None:
    plant(lambda index, block_input: index == 1)
    changes: dict[str, Any] = {"alpha": 0.0} if method == "gptq" else {}
    with pytest.raises(FairgateError, match=r"model.layers.1: out of memory, and no batch can be smaller[\s\S]*Remedy: "):
        run(llama, calibration, tmp_path, **changes)
    assert not (tmp_path / "out").exists()


def test_other_errors_of_a_block_are_not_taken_for_it(
    llama: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_pass, "forward", lambda *arguments: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        run(llama, calibration, tmp_path)


def _agreement(one: Path, other: Path) -> float:
    """Share of packed words that are equal."""
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    names = [name for name in a if name.endswith("qweight")]
    return sum(int((a[name] == b[name]).sum()) for name in names) / sum(a[name].numel() for name in names)
