from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fairgate.contracts.contributions import STATES, read_contributions
from fairgate.contracts.records import Quantization, Status, read_record
from fairgate.support.digests import sha256_file, sha256_folder
from fairgate.support.errors import FairgateError, UnknownName
from fairgate.support.params import parse
from stages.quantize.core.diagnostics import TOP
from stages.quantize.methods import METHODS
from stages.quantize.methods.fair_gptq import FairGptq
from stages.quantize.methods.gptq import Gptq
from stages.quantize.methods.rtn import Rtn
from stages.quantize.settings import RunSettings, parse_recipe, read_recipe
from stages.quantize.stage import quantize
from tests.tiny import make_tiny_llama

RUN = RunSettings(device="cpu", seed=0, batch_tokens=256)
FAIR: dict[str, Any] = {"method": "fair_gptq", "bits": 4, "group_size": 32, "symmetric": True, "alpha": 0.5}


def _recipe(**changes: Any) -> Rtn:
    data = {**FAIR, **changes}
    if data["method"] != "fair_gptq":
        data = {key: value for key, value in data.items() if key in METHODS[data["method"]].settings.model_fields}
    return parse_recipe(data, where="test")


def _quantize(base: Path, data: Path, out: Path, /, **changes: Any) -> Quantization:
    return quantize("test", _recipe(**changes), RUN, base, data, out, out.parent / "work")


def test_record_names_everything_the_weights_depend_on(llama: Path, calibration: Path, tmp_path: Path) -> None:
    _quantize(llama, calibration, tmp_path / "out")
    record = read_record(Quantization, tmp_path / "out" / "quantization.json")
    assert record.base_digest == sha256_folder(llama)
    assert record.settings["alpha"] == 0.5
    assert record.settings["mode"] == "exact"
    assert record.pairs == 16
    assert record.tokens > 0
    assert len(record.modules) == 14
    assert record.files["tokenizer.json"] == sha256_file(tmp_path / "out" / "tokenizer.json")
    assert all(row.debiased and row.bias_ratio is not None and row.shift > 0 for row in record.modules)
    assert all(row.penalty and row.penalty.target < row.penalty.weight for row in record.modules)
    assert any("start token" in note for note in record.notes)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["bits"] == 4


def test_contributions_stand_beside_the_weights(llama: Path, calibration: Path, tmp_path: Path) -> None:
    record = _quantize(llama, calibration, tmp_path / "out")
    rows = read_contributions(tmp_path / "out" / "contributions.csv")  # refuses sums that do not add up
    assert record.files["contributions.csv"] == sha256_file(tmp_path / "out" / "contributions.csv")
    modules = {row.module: row for row in rows if row.level == "module"}
    assert list(modules) == [row.name for row in record.modules]
    for row in record.modules:
        assert row.penalty and row.penalty.model_dump() == {state: getattr(modules[row.name], state) for state in STATES}
    assert rows[0].target < rows[0].quantized < (rows[0].alpha_zero or 0)
    assert len([row for row in rows if row.level == "input"]) == 14 * (TOP + 1)


def test_alpha_zero_is_what_gptq_leaves_and_does_not_touch_the_weights(
    llama: Path, calibration: Path, tmp_path: Path, default: str
) -> None:
    """A run with next to no alpha gives q, k and v of block 0, whose inputs no quantization has
    changed, the weights of GPTQ.
    """
    lean = _quantize(llama, calibration, tmp_path / "lean", alpha=1e-9).modules
    full = _quantize(llama, calibration, tmp_path / "full").modules
    for small, row in list(zip(lean, full, strict=True))[:3]:
        assert small.penalty and row.penalty and row.penalty.alpha_zero
        assert row.penalty.alpha_zero == pytest.approx(small.penalty.quantized, rel=1e-6)
        assert row.penalty.quantized < 0.99 * row.penalty.alpha_zero
    run = RUN.model_copy(update={"alpha_zero": False})
    without = quantize("test", _recipe(), run, llama, calibration, tmp_path / "out", tmp_path / "work")
    assert without.weight_digest == default
    assert {row.penalty.alpha_zero for row in without.modules if row.penalty} == {None}


def test_diagnostics_tell_and_do_not_touch_the_weights(llama: Path, calibration: Path, tmp_path: Path, default: str) -> None:
    run = RUN.model_copy(update={"diagnostics": False})
    without = quantize("test", _recipe(), run, llama, calibration, tmp_path / "out", tmp_path / "work")
    assert without.weight_digest == default
    assert {(row.debiased, row.penalty, row.top_eigenvalue) for row in without.modules} == {(True, None, None)}
    assert not (tmp_path / "out" / "contributions.csv").exists()


def test_more_gpus_than_there_are_is_an_error(llama: Path, calibration: Path, tmp_path: Path) -> None:
    run = RUN.model_copy(update={"gpus": 2})
    with pytest.raises(FairgateError, match=r"quantize\.gpus: 2 GPUs asked for, 1 to be had on 'cpu'"):
        quantize("test", _recipe(), run, llama, calibration, tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "out").exists()


def test_recipe_without_fairness_term_has_no_contributions(llama: Path, calibration: Path, tmp_path: Path) -> None:
    _quantize(llama, calibration, tmp_path / "out", method="gptq")
    assert not (tmp_path / "out" / "contributions.csv").exists()


def test_same_inputs_same_digest(llama: Path, calibration: Path, tmp_path: Path) -> None:
    first = _quantize(llama, calibration, tmp_path / "a")
    second = _quantize(llama, calibration, tmp_path / "b")
    assert first == second
    assert sha256_folder(tmp_path / "a") == sha256_folder(tmp_path / "b")


def test_alpha_zero_equals_gptq_bit_for_bit(llama: Path, calibration: Path, tmp_path: Path) -> None:
    fair = _quantize(llama, calibration, tmp_path / "fair", alpha=0.0)
    plain = _quantize(llama, calibration, tmp_path / "plain", method="gptq")
    assert fair.weight_digest == plain.weight_digest
    assert not any(row.debiased for row in fair.modules)


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": 3},
        {"bits": 8},
        {"bits": 2},
        {"group_size": 64},
        {"group_size": -1},
        {"symmetric": False},
        {"clip": "mse"},
        {"bits_by_module": {"v_proj": 8}},
        {"format": "gptq_v2"},
        {"static_groups": True},
        {"damping": 0.1},
        {"calibration": "pairs"},
        {"text_share": 0.9},
        {"collection": "parallel"},
        {"mode": "authors"},
        {"mode": "authors-sum"},
        {"mode": "error-only"},
        {"alignment": "positional"},
        {"alignment": "positional-padded"},
        {"alignment": "equal-length"},
        {"alignment": "pooled-mean"},
        {"alignment": "pooled-last"},
        {"alignment": "group-mean"},
        {"alpha": 0.1},
        {"alpha": None, "rho": 0.05},
        {"alpha": None, "rho": 0.05, "rho_scope": "global"},
        {"modules": "out"},
        {"modules": ["v_proj"]},
        {"method": "gptq"},
        {"method": "rtn"},
    ],
    ids=str,
)
def test_every_setting_changes_the_weights(changes: dict[str, Any], llama: Path, calibration: Path, tmp_path: Path, default: str) -> None:
    assert _quantize(llama, calibration, tmp_path / "out", **changes).weight_digest != default


@pytest.fixture(scope="module")
def default(llama: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _quantize(llama, calibration, tmp_path_factory.mktemp("default") / "out").weight_digest


def test_act_order_changes_the_weights_of_static_groups(llama: Path, calibration: Path, tmp_path: Path) -> None:
    in_order = _quantize(llama, calibration, tmp_path / "a", static_groups=True)
    by_activity = _quantize(llama, calibration, tmp_path / "b", static_groups=True, act_order=True)
    assert in_order.weight_digest != by_activity.weight_digest
    quantization = json.loads((tmp_path / "b" / "quantize_config.json").read_text())
    assert (quantization["desc_act"], quantization["static_groups"]) == (False, True)
    assert all(
        torch.equal(t, torch.arange(len(t)) // 32)
        for name, t in load_file(tmp_path / "b" / "model.safetensors").items()
        if name.endswith("g_idx")
    )


def test_group_by_target_differs_from_group_by_bias_type(llama: Path, calibration: Path, tmp_path: Path) -> None:
    by_type = _quantize(llama, calibration, tmp_path / "a", alignment="group-mean", alpha=10.0)
    by_target = _quantize(llama, calibration, tmp_path / "b", alignment="group-mean", alpha=10.0, group_by="target")
    assert by_type.weight_digest != by_target.weight_digest


def test_only_the_chosen_modules_are_debiased(llama: Path, calibration: Path, tmp_path: Path) -> None:
    record = _quantize(llama, calibration, tmp_path / "out", modules="out")
    assert {row.kind for row in record.modules if row.debiased} == {"o_proj", "down_proj"}
    assert len(record.modules) == 14


def test_only_the_chosen_blocks_are_debiased(calibration: Path, tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base", layers=4)
    record = _quantize(base, calibration, tmp_path / "out", blocks="upper")
    assert {row.block for row in record.modules if row.debiased} == {2, 3}


def test_global_rho_keeps_the_natural_weighting(llama: Path, calibration: Path, tmp_path: Path) -> None:
    parallel = {"collection": "parallel", "alpha": None, "rho": 0.05}
    each = _quantize(llama, calibration, tmp_path / "a", **parallel)
    whole = _quantize(llama, calibration, tmp_path / "b", **parallel, rho_scope="global")
    ratios = [row.bias_ratio for row in each.modules if row.bias_ratio is not None]
    assert ratios == pytest.approx([0.05] * 14, rel=1e-4)
    assert max(row.bias_ratio or 0 for row in whole.modules) > 1.2 * min(row.bias_ratio or 0 for row in whole.modules)


def test_sequential_inputs_come_from_quantized_modules(llama: Path, calibration: Path, tmp_path: Path) -> None:
    sequential = _quantize(llama, calibration, tmp_path / "a", bits=2)
    parallel = _quantize(llama, calibration, tmp_path / "b", bits=2, collection="parallel")
    first = [(a.name, a.loss == b.loss) for a, b in zip(sequential.modules, parallel.modules, strict=True)]
    assert [name for name, same in first if same] == [f"model.layers.0.self_attn.{leaf}_proj" for leaf in "qkv"]


def test_failed_factorization_is_a_counted_status(
    llama: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Damping that cannot help: the ladder is exhausted on purpose, and every module says so."""
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda A: (A, torch.tensor(1)))
    record = _quantize(llama, calibration, tmp_path / "out")
    assert {row.status for row in record.modules} == {Status.fallback_rtn}
    assert all(len(row.damping_tried["T"]) == 41 and row.loss is None for row in record.modules)
    assert "14 of 14 modules were rounded to nearest: no factorization succeeded" in record.notes
    assert (
        "model.layers.1.mlp.down_proj: rounded to nearest, no factorization succeeded (damping of T: 41 tries up to 0.1100)" in caplog.text
    )


def test_a_module_that_needed_more_damping_says_which(
    llama: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two tries fail on purpose; they fall on the first group, q, k and v of block 0."""
    own, answers = torch.linalg.cholesky_ex, iter([torch.tensor(1)] * 2)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda A: (own(A)[0], next(answers, torch.tensor(0))))
    record = _quantize(llama, calibration, tmp_path / "out")
    damped = {row.name.rsplit(".", 1)[-1]: row for row in record.modules if row.status is Status.damped}
    assert set(damped) == {"q_proj", "k_proj", "v_proj"}
    assert damped["v_proj"].damping_tried == {"T": pytest.approx([0.01, 0.0125, 0.015])}
    assert damped["v_proj"].damping == pytest.approx(0.015)
    assert all(row.damping_tried == {"T": [0.01]} for row in record.modules if row.status is Status.ok)


UP = ("model.layers.1.mlp.up_proj.weight", float("nan"), "model.layers.1.mlp.up_proj.weight: 1 of 8192 values are NaN or infinite")
# Finite itself, but what goes through it is not.
NORM = ("model.layers.1.input_layernorm.weight", 3e38, "model.layers.1.self_attn.q_proj[^ ]*: the Hessian holds")


@pytest.mark.parametrize(("method", "fault"), [("fair_gptq", UP), ("fair_gptq", NORM), ("gptq", UP), ("gptq", NORM), ("rtn", UP)])
def test_not_finite_names_block_and_module(
    method: str, fault: tuple[str, float, str], llama: Path, calibration: Path, tmp_path: Path
) -> None:
    tensor, value, where = fault
    base = shutil.copytree(llama, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors[tensor].view(-1)[0] = value
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(FairgateError, match=rf"{where}[\s\S]*Remedy: "):
        _quantize(base, calibration, tmp_path / "out", method=method)


def test_interrupted_run_leaves_its_blocks_to_the_next_one(
    llama: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stages.quantize.stage.write_record", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _quantize(llama, calibration, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    monkeypatch.undo()
    monkeypatch.setattr("stages.quantize.methods.closed_form.blocks.quantize_block", interrupt)
    _quantize(llama, calibration, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_group_size_that_does_not_fit_names_those_that_do(llama: Path, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(FairgateError, match=r"q_proj: group_size 128 does not divide the 64 inputs[\s\S]*16, 32, 64, -1"):
        _quantize(llama, calibration, tmp_path / "out", group_size=128)


def test_quantized_model_is_refused(llama: Path, calibration: Path, tmp_path: Path) -> None:
    _quantize(llama, calibration, tmp_path / "once", method="rtn")
    with pytest.raises(FairgateError, match="already quantized"):
        _quantize(tmp_path / "once", calibration, tmp_path / "twice")


def test_unsupported_architecture_is_named_with_the_supported(llama: Path, calibration: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for model_type in ("t5", "nobody-knows"):
        (base / "config.json").write_text(json.dumps({"model_type": model_type, "auto_map": {"AutoConfig": "own.Config"}}))
        with pytest.raises(FairgateError, match=rf"'{model_type}'[\s\S]*llama, mistral, opt, phi"):
            _quantize(base, calibration, tmp_path / "out")


def test_no_disk_space_is_said_before_work_starts(llama: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(FairgateError, match="no disk space"):
        _quantize(llama, calibration, tmp_path / "out")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({**FAIR, "aplha": 1.0}, "did you mean 'alpha'"),
        ({**FAIR, "mode": "exakt"}, "mode: .*got 'exakt'[\\s\\S]*did you mean 'exact'"),
        ({**FAIR, "rho": 0.1}, "either alpha or rho"),
        ({**FAIR, "alpha": None}, "either alpha or rho"),
        ({**FAIR, "calibration": "text"}, "needs pairs"),
        ({**FAIR, "group_size": 48}, r"recipes.x: group_size must be .*got 48"),
        ({**FAIR, "bits": 5}, "bits"),
        ({**FAIR, "bits_by_module": {"o_proj": 5}}, r"bits_by_module.o_proj: .*got 5"),
        ({**FAIR, "clip": "mes"}, "did you mean 'mse'"),
        ({**FAIR, "format": "gptq_v3"}, "did you mean 'gptq"),
        ({**FAIR, "symmetric": False, "bits_by_module": {"o_proj": 8}}, "needs format: gptq_v2"),
        ({**FAIR, "act_order": True}, "act_order needs static_groups"),
    ],
)
def test_wrong_recipe_is_explained(data: dict[str, Any], message: str) -> None:
    with pytest.raises(FairgateError, match=message):
        parse(FairGptq, data, where="params.yaml:recipes.x")


def test_a_recipe_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("recipes: {rtn: }\n")
    with pytest.raises(FairgateError, match=r"recipes.rtn: not a mapping of settings"):
        read_recipe("rtn", tmp_path / "params.yaml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(llama: Path, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(FairgateError, match="torch sees no GPU"):
        quantize("test", _recipe(), RUN.model_copy(update={"device": "cuda"}), llama, calibration, tmp_path / "out", tmp_path / "work")


def test_unknown_module_set_names_the_nearest(llama: Path, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'o_proj'"):
        _quantize(llama, calibration, tmp_path / "out", modules=["o_prj"])


def test_a_pattern_that_fits_no_module_names_the_nearest(llama: Path, calibration: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"module pattern 'o_prj'[\s\S]*did you mean 'o_proj'"):
        _quantize(llama, calibration, tmp_path / "out", bits_by_module={"down_proj": 8, "o_prj": 3})


def test_gptq_recipe_has_no_fairness_settings() -> None:
    assert "alpha" not in Gptq.model_fields


@pytest.mark.parametrize("method", ["rtn", "gptq", "fair_gptq", "learned"])
def test_a_weight_whose_scale_float16_cannot_hold_is_named_with_its_module(
    method: str, llama: Path, calibration: Path, tmp_path: Path
) -> None:
    base, data = (shutil.copytree(folder, tmp_path / name) for name, folder in (("base", llama), ("data", calibration)))
    shutil.copy(data / "text.jsonl", data / "training.jsonl")
    weights, name = load_file(base / "model.safetensors"), "model.layers.0.mlp.up_proj"
    # Small enough for the check of the folder, which does not know the groups.
    weights[f"{name}.weight"][0, 0] = 9e5
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    data_of = {"steps": 1, "rate": 0.1, "texts": 1, "text_tokens": 16} if method == "learned" else {}
    recipe = {key: value for key, value in FAIR.items() if key != "alpha" or method == "fair_gptq"} | {"method": method, **data_of}
    pattern = rf"{name}: the scale of a group overflows float16 \(at most 65504\): the largest weight .* \d\.?\d*e\+05"
    with pytest.raises(FairgateError, match=pattern):
        quantize("test", parse_recipe(recipe, where="test"), RUN, base, data, tmp_path / "out", tmp_path / "work")
    if method == "rtn":  # as the remedy says
        wide = parse_recipe({**recipe, "bits_by_module": {"up_proj": 8}}, where="test")
        assert quantize("test", wide, RUN, base, data, tmp_path / "out", tmp_path / "work").modules
