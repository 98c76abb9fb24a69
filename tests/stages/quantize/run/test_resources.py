from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fairgate.contracts.records import Text, write_records
from fairgate.support.errors import BadRecord, FairgateError, UnknownName
from fairgate.support.params import parse
from stages.quantize.core.compute import Compute
from stages.quantize.methods import METHODS
from stages.quantize.methods.base import Forecast
from stages.quantize.methods.closed_form.calibration import Calibration
from stages.quantize.methods.closed_form.forecast import batches_that_fit, forecast
from stages.quantize.methods.fair_gptq import FairGptq
from stages.quantize.methods.learned import FairRound
from stages.quantize.methods.learned.data import Slots
from stages.quantize.methods.learned.method import LearningData
from stages.quantize.methods.rtn import Rtn
from stages.quantize.model.streamed import Streamed
from stages.quantize.run import resources
from stages.quantize.run.resources import available, require_resources
from stages.quantize.run.store import BlockStore
from stages.quantize.settings import RunSettings, parse_recipe
from stages.quantize.stage import quantize
from tests.stages.quantize.methods.closed_form.test_retry import _batches
from tests.stages.quantize.model.test_calibration_pass import CPU, LLAMA
from tests.stages.quantize.run.test_store import RECIPE, run
from tests.tiny import SENTENCES

RUN = RunSettings(device="cpu", seed=0, batch_tokens=256)
LEARNED = {"method": "fair_round", "bits": 4, "group_size": 32, "symmetric": True, "steps": 2, "texts": 2, "text_tokens": 24, "pairs": 4}
LINEARS = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)  # weights of the tiny Llama's two blocks


def _needs(base: Path, calibration: Path, low_memory: bool = False, **changes: Any) -> Forecast:
    recipe = parse(FairGptq, {**RECIPE, **changes}, where="test")
    return forecast(Streamed(base, LLAMA), recipe, Compute(CPU, low_memory=low_memory), _batches(base, calibration, 256))


@pytest.mark.parametrize("changes", [{}, {"bits": 8}, {"group_size": -1, "bits": 2}, {"bits_by_module": {"down_proj": 8}}], ids=str)
def test_checkpoint_is_as_large_as_forecast(changes: dict[str, Any], llama: Path, calibration: Path, tmp_path: Path) -> None:
    run(llama, calibration, tmp_path, **changes)
    written = sum(tensor.nbytes for tensor in load_file(tmp_path / "out" / "model.safetensors").values())
    assert _needs(llama, calibration, **changes).out == pytest.approx(written, rel=0.03)  # headers are counted as tensors


def _sizes(work: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of the unfinished run, as they are after every block that is stored from now on."""
    sizes: list[int] = []
    own = BlockStore.add

    def add(self: BlockStore, *arguments: Any) -> None:
        own(self, *arguments)
        self.flush()
        sizes.append(sum(file.stat().st_size for file in work.glob("*.safetensors")))

    monkeypatch.setattr(BlockStore, "add", add)
    return sizes


def test_unfinished_run_takes_the_disk_that_was_forecast(
    llama: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = _sizes(tmp_path / "work", monkeypatch)
    run(llama, calibration, tmp_path)
    hidden = sum(batch.ids.numel() for batch in _batches(llama, calibration, 256)) * 64 * 4
    # While the hidden states are replaced there are two of them.
    assert _needs(llama, calibration).work == pytest.approx(sizes[-1] + hidden, rel=0.05)


def test_more_memory_is_forecast_where_more_stands_in_it(llama: Path, calibration: Path) -> None:
    batches, recipe = _batches(llama, calibration, 256), parse(FairGptq, RECIPE, where="test")
    whole = _needs(llama, calibration)
    assert _needs(llama, calibration, low_memory=True).cpu < whole.cpu
    twice = forecast(Streamed(llama, LLAMA), recipe, Compute(CPU), batches * 2)
    tokens = sum(batch.ids.numel() for batch in batches)
    # Hidden states at the block and on their way to the disk, the residual and its normed copy, and
    # the widest input (down_proj's 128).
    assert twice.cpu - whole.cpu == tokens * (4 * 64 + 128) * 4
    rtn = Rtn(method="rtn", bits=4, group_size=32, symmetric=True)
    assert METHODS["rtn"].forecast(rtn, Streamed(llama, LLAMA), Compute(CPU), None).cpu < whole.cpu


def test_as_many_batches_wait_as_fit(llama: Path, calibration: Path) -> None:
    batches, recipe = _batches(llama, calibration, 256), parse(FairGptq, RECIPE, where="test")
    source, gpu = Streamed(llama, LLAMA), Compute(torch.device("cuda"))
    assert len(batches) > 3
    all_wait, none_waits = (forecast(source, recipe, replace(gpu, waiting=count), batches).gpu for count in (None, 0))
    assert none_waits < all_wait
    assert batches_that_fit(source, recipe, gpu, batches, all_wait) == len(batches)
    assert batches_that_fit(source, recipe, gpu, batches, none_waits) == batches_that_fit(source, recipe, gpu, batches, 1) == 0
    some = batches_that_fit(source, recipe, gpu, batches, (all_wait + none_waits) / 2)
    assert 0 < some < len(batches)
    assert forecast(source, recipe, replace(gpu, waiting=some), batches).gpu <= (all_wait + none_waits) / 2


def test_too_little_memory_is_said_before_a_weight_is_loaded(
    llama: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Streamed, "non_block_weights", lambda *arguments: pytest.fail("a weight was loaded"))
    whole, lean = _needs(llama, calibration).cpu, _needs(llama, calibration, low_memory=True).cpu
    monkeypatch.setattr(resources, "available", lambda: whole - 1)
    with pytest.raises(FairgateError, match=r"no memory for this run[\s\S]*Remedy: set `quantize.low_memory: true`, which needs"):
        run(llama, calibration, tmp_path)
    monkeypatch.setattr(resources, "available", lambda: lean - 1)
    with pytest.raises(FairgateError, match=r"no memory for this run[\s\S]*Remedy: end what else needs it"):
        run(llama, calibration, tmp_path)
    assert not (tmp_path / "out").exists()


def test_finished_blocks_count_as_space_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = Forecast(cpu=0, gpu=0, out=1000, work=500)
    (tmp_path / "work").mkdir()
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1200})())
    with pytest.raises(FairgateError, match="no disk space for the packed checkpoint and the blocks"):
        require_resources(needs, needs, tmp_path / "out", tmp_path / "work", torch.device("cpu"))
    (tmp_path / "work" / "block-0000.safetensors").write_bytes(b"x" * 300)
    require_resources(needs, needs, tmp_path / "out", tmp_path / "work", torch.device("cpu"))


def test_a_containers_limit_counts_as_the_machine(tmp_path: Path) -> None:
    assert available(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  900 kB\nMemAvailable:     500 kB\n")
    assert available(tmp_path) == 500 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("90000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 40000\n")
    assert available(tmp_path) == 500 * 1024
    (group / "memory.max").write_text("100000\n")
    assert available(tmp_path) == 50000


def _learned(**changes: Any) -> FairRound:
    return parse_recipe({**LEARNED, **changes}, where="test")


@pytest.fixture
def learning(calibration: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(calibration, tmp_path / "calibration")
    write_records(folder / "training.jsonl", [Text(text_id=str(n), text=" ".join(SENTENCES[n:])) for n in range(4)])
    return folder


def test_more_memory_is_forecast_for_what_learned_rounding_holds(llama: Path, calibration: Path) -> None:
    source, step, batches = Streamed(llama, LLAMA), Slots(texts=4000, triples=1000), _batches(llama, calibration, 256)

    def needs(compute: Compute, slots: Slots = step, **changes: Any) -> Forecast:
        data = LearningData(Calibration(batches, 2), None, slots)
        return METHODS["fair_round"].forecast(_learned(**changes), source, compute, data)

    whole = needs(Compute(CPU))
    vocabulary = source.model.config.vocab_size
    # Inputs and outputs of the linear modules of two blocks, two norms' inputs, 7 times the logits.
    token = 2 * (4 * (64 + 64 + 64 + 128) + 4 * (64 + 32 + 32 + 64 + 128 + 128 + 64) + 8 * 64)
    assert needs(Compute(CPU), Slots(texts=5000)).cpu - whole.cpu == 1000 * (token + 7 * 4 * vocabulary)
    assert needs(Compute(CPU), recompute=True).cpu == whole.cpu - 4000 * (token // 2 - 2 * 64 * 4)
    assert needs(Compute(CPU), features=0.5).cpu == whole.cpu + 4000 * 2 * 64 * (4 + 4)
    assert needs(Compute(CPU), start="gptq").cpu == whole.cpu + 5 * LINEARS
    assert needs(Compute(CPU), block_steps=1, texts=1000).cpu > whole.cpu
    gpu = needs(Compute(torch.device("cuda"), torch.bfloat16))
    assert gpu.cpu < gpu.gpu < whole.cpu
    assert whole.gpu == 0


def test_the_state_of_learned_rounding_takes_the_disk_that_was_forecast(
    llama: Path, learning: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = _sizes(tmp_path / "work", monkeypatch)
    quantize("test", _learned(keep=1), RUN, llama, learning, tmp_path / "out", tmp_path / "work")
    state = LINEARS * (4 + 4 / 32)
    data = LearningData(None, None, Slots())
    work = METHODS["fair_round"].forecast(_learned(), Streamed(llama, LLAMA), Compute(CPU), data).work
    assert work == 2 * state
    assert 0.5 * work < sizes[-1] < work


def test_too_little_memory_for_learned_rounding_is_said_with_its_own_remedies(
    llama: Path, learning: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> None:
        quantize("test", _learned(texts=64), RUN, llama, learning, tmp_path / "out", tmp_path / "work")

    monkeypatch.setattr(Streamed, "loaded_block", lambda *arguments: pytest.fail("a weight was loaded"))
    monkeypatch.setattr(resources, "available", lambda: 0)
    with pytest.raises(FairgateError, match=r"no memory for this run[\s\S]*Remedy: end what else[\s\S]*fewer `texts` or `pairs`") as caught:
        run()
    needed = int(caught.value.what.split("about ")[1].split(" MiB")[0])
    monkeypatch.setattr(resources, "available", lambda: (needed - 1) * 2**20)
    with pytest.raises(FairgateError, match=r"Remedy: set `recompute: true` in the recipe, which needs about"):
        run()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"), "1 tensors are missing: model.layers.1.mlp.up_proj.weight"),
        (
            lambda tensors: tensors.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(64, 64)}),
            r"up_proj.weight is \[64, 64\], not \[128, 64\]",
        ),
    ],
)
def test_a_checkpoint_of_other_shapes_is_refused_from_its_headers(
    fault: Any, message: str, llama: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = shutil.copytree(llama, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    fault(tensors)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    monkeypatch.setattr(Streamed, "non_block_weights", lambda *arguments: pytest.fail("a weight was loaded"))
    with pytest.raises(BadRecord, match=message):
        run(base, calibration, tmp_path)


def test_output_layer_stays_as_it_is_and_is_refused_by_name(llama: Path, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown module 'lm_head'[\s\S]*known: down_proj"):
        run(llama, calibration, tmp_path, modules=["lm_head"])
    assert not (tmp_path / "work").exists()
    record = run(llama, calibration, tmp_path)
    assert json.loads((llama / "config.json").read_text())["tie_word_embeddings"]
    assert any("embedding's own tensor and stays in full precision" in note for note in record.notes)
    before, after = (load_file(folder / "model.safetensors") for folder in (llama, tmp_path / "out"))
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
