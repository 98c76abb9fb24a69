"""How methods read pairs and texts: special tokens, pads, the model's positions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from fairgate.contracts.records import Pair, Quantization, Text, read_records, write_records
from fairgate.support.errors import BadRecord, FairgateError
from stages.evaluate.model import KERNEL_TOLERANCE, kernel_difference, load
from stages.quantize.methods import METHODS
from stages.quantize.methods.base import Inputs
from stages.quantize.methods.learned.data import read_draw
from stages.quantize.methods.shared.reader import read_reader
from stages.quantize.model.architectures import architecture_of
from stages.quantize.model.calibration_pass import embed, forward
from stages.quantize.model.streamed import Streamed
from stages.quantize.settings import RunSettings, parse_recipe
from stages.quantize.stage import quantize
from tests.tiny import SENTENCES, make_tiny, make_tiny_llama

GRID: dict[str, Any] = {"bits": 4, "group_size": 32, "symmetric": True}
GPTQ = {"method": "gptq", **GRID}
FAIR = {"method": "fair_gptq", "alpha": 0.5, **GRID}
LEARNED = {"method": "fair_round", "steps": 2, "rate": 0.1, "texts": 2, "text_tokens": 24, "pairs": 2, **GRID}
LONG = {"rope_type": "longrope", "original_max_position_embeddings": 24, "factor": 10.7, "rope_theta": 10000.0,
        "short_factor": [1.0] * 8, "long_factor": [8.0] * 8}  # fmt: skip


def run(settings: dict[str, Any], base: Path, calibration: Path, out: Path) -> Quantization:
    recipe = parse_recipe(settings, where="test")
    return quantize("test", recipe, RunSettings(device="cpu", seed=0, batch_tokens=256), base, calibration, out, out.parent / "work")


def read(settings: dict[str, Any], base: Path, calibration: Path, batch_tokens: int = 256) -> Inputs[Any]:
    recipe = parse_recipe(settings, where="test")
    return METHODS[settings["method"]].read(recipe, base, calibration, batch_tokens=batch_tokens, seed=0)


def with_training(folder: Path, out: Path) -> Path:
    shutil.copytree(folder, out)
    shutil.copy(out / "text.jsonl", out / "training.jsonl")
    return out


def with_texts(folder: Path, out: Path, *texts: str) -> Path:
    shutil.copytree(folder, out)
    write_records(out / "text.jsonl", [Text(text_id=str(number), text=text) for number, text in enumerate(texts)])
    return out


@pytest.mark.parametrize("settings", [GPTQ, {**FAIR, "alignment": "positional-padded"}, LEARNED], ids=lambda s: s["method"])
def test_a_pad_token_beyond_the_table_does_not_matter(settings: dict[str, Any], few_pairs: Path, tmp_path: Path) -> None:
    base, calibration = make_tiny("llama", tmp_path / "base"), with_training(few_pairs, tmp_path / "data")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token  # what takes its place
    tokenizer.save_pretrained(base)
    wanted = run(settings, base, calibration, tmp_path / "wanted")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == 384
    tokenizer.save_pretrained(base)
    assert run(settings, base, calibration, tmp_path / "out").weight_digest == wanted.weight_digest


def test_what_the_tokenizer_appends_enters_no_text_and_no_pair(few_pairs: Path, tmp_path: Path) -> None:
    base, calibration = make_tiny("llama", tmp_path / "base"), with_training(few_pairs, tmp_path / "data")
    plain = {name: read(settings, base, calibration) for name, settings in (("fair", FAIR), ("learned", LEARNED))}
    inner = Tokenizer.from_file(str(base / "tokenizer.json"))
    inner.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    inner.save(str(base / "tokenizer.json"))
    fair, learned = read(FAIR, base, calibration), read(LEARNED, base, calibration)
    assert fair.notes == learned.notes == ["the tokenizer appends '</s>', which was left out"]
    for found, wanted in zip(fair.data.batches, plain["fair"].data.batches, strict=True):
        assert torch.equal(found.ids, wanted.ids)  # both begin with <s>
    assert torch.equal(learned.data.draw.texts(0, 2).ids, plain["learned"].data.draw.texts(0, 2).ids)
    assert torch.equal(learned.data.draw.triples(0, 2)[0].ids, plain["learned"].data.draw.triples(0, 2)[0].ids)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_texts_are_cut_and_pairs_left_out_beyond_the_models_positions(family: str, few_pairs: Path, tmp_path: Path) -> None:
    context = {"n_positions" if family == "gpt2" else "max_position_embeddings": 32}
    base, calibration = make_tiny(family, tmp_path / "base", **context), with_training(few_pairs, tmp_path / "data")
    pairs = read_records(Pair, calibration / "pairs.jsonl")
    long = pairs[0].model_copy(update={"pair_id": "long", "stereotype": " ".join(SENTENCES)})
    write_records(calibration / "pairs.jsonl", [*pairs, long])
    record = run(GPTQ, base, calibration, tmp_path / "out")
    assert "1 of 7 pairs exceed the 32 tokens that the model has positions for, and were left out" in record.notes
    assert "2 of 2 texts exceed the 32 tokens that the model has positions for, and were cut there" in record.notes
    assert record.pairs == 6
    assert {batch.ids.shape[1] for batch in read(GPTQ, base, calibration).data.batches if batch.M is None} == {32}
    learned = run({**LEARNED, "text_tokens": 64}, base, calibration, tmp_path / "learned")
    assert "1 of 7 pairs have a sentence of more than 32 tokens, and were left out" in learned.notes
    assert any(note.startswith("rows of text have 32 tokens") for note in learned.notes)


def test_the_packed_kernel_is_compared_within_the_models_positions(few_pairs: Path, tmp_path: Path) -> None:
    base = make_tiny("opt", tmp_path / "base", max_position_embeddings=24)
    run({"method": "rtn", **GRID}, base, few_pairs, tmp_path / "out")
    model = load(tmp_path / "out", dtype="float32", device="cpu")
    assert kernel_difference(model, tmp_path / "out") < KERNEL_TOLERANCE


def test_a_model_that_has_no_pair_short_enough_is_named(few_pairs: Path, tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base", max_position_embeddings=4)
    with pytest.raises(BadRecord, match="no token to calibrate with: 0 of 6 pairs and 2 of 2 texts can be used"):
        read({**FAIR, "calibration": "pairs"}, base, few_pairs)


def test_texts_without_a_token_are_left_out_and_none_at_all_is_refused(few_pairs: Path, llama: Path, tmp_path: Path) -> None:
    base = shutil.copytree(llama, tmp_path / "base")
    some = with_texts(few_pairs, tmp_path / "some", "", "A pilot.", "")
    text = {**GPTQ, "calibration": "text"}
    assert read(text, base, some).texts == 1
    assert "2 of 3 texts have no token, and were left out" in read(text, base, some).notes
    none = with_texts(few_pairs, tmp_path / "none", "", "")
    shutil.copy(none / "text.jsonl", none / "training.jsonl")
    for ends in (True, False):  # with a start token in front, and without one
        if not ends:
            path = base / "tokenizer_config.json"
            kept = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("bos_token", "eos_token", "pad_token")}
            path.write_text(json.dumps(kept))
        with pytest.raises(BadRecord, match=rf"{none}: no token to calibrate with: 6 of 6 pairs and 0 of 2 texts can be used\nRemedy"):
            read(text, base, none)
        with pytest.raises(BadRecord, match="no text to learn from"):
            read(LEARNED, base, none)


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_what_a_text_is_to_a_block_does_not_depend_on_its_batch(family: str, few_pairs: Path, tmp_path: Path) -> None:
    base = make_tiny(family, tmp_path / "base", rope_parameters=LONG, original_max_position_embeddings=24)
    words = " ".join(SENTENCES).split()
    calibration = with_texts(few_pairs, tmp_path / "data", *(" ".join(words[: 3 + 2 * number]) for number in range(9)))
    source = Streamed(base, architecture_of(family))
    found: list[dict[tuple[int, ...], torch.Tensor]] = []
    for batch_tokens in (1, 150, 4096):
        inputs = embed(source, read({**GPTQ, "calibration": "text"}, base, calibration, batch_tokens).data.batches, torch.device("cpu"))
        states = {}
        with source.loaded_block(0, torch.device("cpu")) as block, torch.inference_mode():
            for block_input in inputs:
                for ids, mask, out in zip(block_input.batch.ids, block_input.batch.mask, forward(block, block_input, 0), strict=True):
                    states[tuple(ids[mask].tolist())] = out[mask]
        found.append(states)
    alone, *others = found
    assert min(map(len, alone)) < 24 < max(map(len, alone))
    for states in others:
        for ids, state in alone.items():
            assert torch.allclose(states[ids], state, atol=1e-5)


def test_learned_rounding_reads_texts_of_one_regime(few_pairs: Path, tmp_path: Path) -> None:
    base, calibration = make_tiny("llama", tmp_path / "base", rope_parameters=LONG), with_training(few_pairs, tmp_path / "data")
    inputs = read_draw(base, calibration / "training.jsonl", [calibration / "pairs.jsonl"], 0, 64, None)
    assert inputs.data.texts(0, 2).ids.shape[1] == 24
    assert inputs.data.triples(0, 2)[0].ids.shape[1] <= 24
    assert any(note.startswith("rows of text have 24 tokens") for note in inputs.notes)


@pytest.mark.parametrize("spoiled", ["tokenizer.json", "config.json"])
def test_a_tokenizer_or_configuration_that_cannot_be_read_is_named(tmp_path: Path, spoiled: str) -> None:
    base = make_tiny_llama(tmp_path / "base", layers=1)
    (base / spoiled).write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(FairgateError, match=rf"{spoiled}.*: transformers cannot read"):
        read_reader(base)
