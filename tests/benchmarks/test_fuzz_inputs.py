"""No mutated input ends in a traceback, and the oracle of the fuzz sees a wrong answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.fuzz_inputs import cases, model_folders, params_files
from benchmarks.fuzz_inputs.cases import KINDS, Kind, make_sound, run_case
from benchmarks.fuzz_inputs.mutations import json_text, mutated_bytes, mutated_json
from benchmarks.fuzz_inputs.outcome import Outcome, failure
from benchmarks.fuzz_inputs.runner import Worker, counted, read_log
from benchmarks.records import read
from fairgate.model_folder.weights import Weights
from fairgate.support.errors import FairgateError
from tests.project import REPOSITORY

CASES = 300


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    make_sound(folder)
    return folder


@pytest.mark.slow
def test_mutated_inputs_are_used_rightly_or_refused(workspace: Path) -> None:
    done = [run_case(number, workspace) for number in range(CASES)]
    assert [(case.number, case.steps, case.outcome.what) for case in done if case.outcome.end == "failure"] == []
    # Both answers occur, so that neither is given blindly.
    assert {case.outcome.end for case in done} >= {"refused", "accepted"}
    assert {case.kind for case in done} == set(KINDS)


def test_a_case_is_the_same_each_time(workspace: Path) -> None:
    def names(number: int) -> dict[str, bytes]:
        case = run_case(number, workspace)
        given = workspace / "input"
        files = {str(path.relative_to(given)): path.read_bytes() for path in given.rglob("*") if path.is_file()}
        return {**files, "steps": json.dumps(case.steps).encode()}

    for number in (3, 4, 5, 6):
        assert names(number) == names(number)


def test_mutations_leave_what_they_are_given_as_it_was() -> None:
    sound = {"a": [1, {"b": "c"}], "d": 2.5}
    for seed in range(300):
        changed = mutated_json(sound, Random(seed))
        assert sound == {"a": [1, {"b": "c"}], "d": 2.5}
        assert json_text(changed) == json_text(mutated_json(sound, Random(seed)))
        assert mutated_bytes(b"some text\n", Random(seed)) == mutated_bytes(b"some text\n", Random(seed))


# --- the oracle: each fault is one that a reader could have


def _glob(folder: Path, **unused: Any) -> Weights:
    """A reader that takes every safetensors file of the folder, the last one winning."""
    from fairgate.model_folder.weights import Stored

    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= {name: Stored(path.name, "F32", tuple(value.shape)) for name, value in load_file(path).items()}
    return Weights(folder, tuple(sorted({stored.file for stored in tensors.values()})), (), tensors)


def _copied(workspace: Path, name: str, target: Path) -> Path:
    import shutil

    return Path(shutil.copytree(workspace / "sound/model_folder" / name, target))


def test_a_reader_by_glob_is_caught(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _copied(workspace, "llama_sharded", tmp_path / "model")
    shard = folder / "model-00001-of-00003.safetensors"
    save_file({name: value + 1 for name, value in load_file(shard).items()}, folder / "old.safetensors", {"format": "pt"})
    (tmp_path / "work").mkdir()
    assert model_folders.judge(folder, tmp_path / "work") == Outcome("accepted")
    monkeypatch.setattr(model_folders, "read_weights", _glob)
    with pytest.raises(model_folders.Disagreement, match="fairgate reads another"):
        model_folders.judge(folder, tmp_path / "work")


def test_a_tokenizer_with_other_tokens_is_caught(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _copied(workspace, "llama", tmp_path / "model")
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: _Words())
    with pytest.raises(model_folders.Disagreement, match="other tokens"):
        model_folders._compare_tokens(folder, None)


class _Words:
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [len(word) for word in text.split()]


@pytest.mark.parametrize("change", [lambda w: w + 1e-7, lambda w: w.T, lambda w: w[:1], lambda w: -w * 0])
def test_every_bit_of_a_parameter_counts(change: Any) -> None:
    theirs = {"a": torch.zeros(4, 3)}
    model_folders._compare(theirs, {"a": torch.zeros(4, 3, dtype=torch.bfloat16)}, "it reads")
    with pytest.raises(model_folders.Disagreement, match="it reads another a"):
        model_folders._compare(theirs, {"a": change(theirs["a"])}, "it reads")
    with pytest.raises(model_folders.Disagreement, match="it reads no a"):
        model_folders._compare(theirs, {}, "it reads")


def test_parameters_that_dvc_reads_otherwise_are_caught(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    (tmp_path / "params.yaml").write_text("calibrate: {seed: 010}\n")
    monkeypatch.setattr(params_files, "check_params", lambda root: None)
    with pytest.raises(FairgateError, match="010"):
        params_files.judge(tmp_path, tmp_path)
    monkeypatch.setattr(params_files, "read_params", lambda path: yaml.safe_load(path.read_text()))
    with pytest.raises(params_files.Disagreement):
        params_files.judge(tmp_path, tmp_path)


def test_an_exception_of_any_other_kind_is_a_failure(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(given: Path, work: Path) -> Outcome:
        raise SystemExit(0)

    monkeypatch.setattr(cases, "KINDS", {name: replace(kind, judge=judge) for name, kind in KINDS.items()})
    assert isinstance(cases.KINDS["data file"], Kind)
    assert run_case(0, workspace).outcome.end == "failure"
    assert failure(ValueError("half \ud800")).what == "ValueError: half \\ud800"


# --- the log


def test_a_log_holds_the_last_word_on_a_case(tmp_path: Path) -> None:
    rows = [{"number": n, "kind": "k", "outcome": {"end": end}} for n, end in ((1, "failure"), (2, "refused"), (1, "accepted"))]
    (tmp_path / "log").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert counted(read_log(tmp_path / "log").values()) == {"k": {"accepted": 1, "refused": 1}}
    assert counted(read_log(tmp_path / "log", last=False).values()) == {"k": {"failure": 1, "refused": 1}}


def test_the_recorded_run_left_no_failure() -> None:
    rows = {row.name: row for row in read(REPOSITORY / "benchmarks/results/inputs.json")}
    assert (rows["fuzz_cases"].value, rows["fuzz_failures"].value) == (10_000, 0)


@pytest.mark.slow
def test_a_case_that_hangs_or_dies_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    try:
        assert worker.run(0)["number"] == 0
        monkeypatch.setattr("benchmarks.fuzz_inputs.runner.LIMIT_S", 0.0)
        assert worker.run(1)["outcome"] == {"end": "failure", "what": "no end after 0 s", "details": ""}
        monkeypatch.undo()
        assert worker.run(2)["number"] == 2  # by a new process
        assert worker._process is not None
        worker._process.kill()
        assert "died" in worker.run(3)["outcome"]["what"]
    finally:
        worker.stop()
