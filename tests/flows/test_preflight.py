from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairgate.support.errors import FairgateError
from flows.preflight import check_params, check_registry
from tests.project import REPOSITORY


def test_shipped_parameters_pass(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(shipped()))
    check_params(tmp_path)


def shipped() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "params.yaml").read_text())


def test_a_pipeline_that_dvc_reads_otherwise_is_told_with_line_and_key(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(shipped()))
    (tmp_path / "dvc.yaml").write_text("stages:\n  fetch:\n    cmd: a\n    cmd: b\n")
    with pytest.raises(FairgateError, match=r"dvc.yaml:4: stages.fetch.cmd: stands twice"):
        check_params(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("b?c", r"MLflow cannot keep a registry in a folder with \? in"),
        ("50%20x", "with %20 in"),
        ("it's", "with ' in"),
        ("a\u00a0b", r"with '\\xa0' in"),
        ("a{b}", "DVC cannot work .* { and }"),
    ],
)
def test_a_folder_in_which_the_tools_fail_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    (tmp_path / name).mkdir()
    (tmp_path / name / "params.yaml").write_text(yaml.safe_dump(shipped()))
    with pytest.raises(FairgateError, match=said):
        check_params(tmp_path / name)
        check_registry(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["matrix"].append("fair_gptqq"), "did you mean 'fair_gptq'"),
        (lambda p: p["recipes"]["gptq"].update(method="gptqq"), "did you mean 'gptq'"),
        (lambda p: p["evaluate"]["tasks"].update(stereset=5), "did you mean 'stereoset'"),
        (lambda p: p["gate"]["checks"][0].update(metric="stereoset.sss"), "did you mean 'stereoset.ss'"),
        (lambda p: p["gate"].update(candidate="fairgptq"), "did you mean 'fair_gptq'"),
        (lambda p: p["gate"].update(candidate="learned"), "gate.candidate: 'learned' is not made.*\n.*add 'learned' to `matrix`"),
        (lambda p: p["gate"].update(reference="learned"), "gate.reference: 'learned' is not made.*\n.*name one of base, rtn"),
        (lambda p: p["gate"].update(candidate="base", reference="rtn"), "gate.candidate: 'base' is not made.*\n.*: name one of rtn"),
        (lambda p: p["calibrate"].update(text=1), "did you mean 'texts'"),
        (lambda p: p["register"].update(experimnt="x"), "did you mean 'experiment'"),
        (lambda p: p.update(gate=[]), "gate: not a mapping of keys"),
        (lambda p: p["gate"].update(checks=[]), "no checks"),
        (lambda p: p["gate"].pop("checks"), "checks: Field required"),
        (lambda p: p["evaluate"]["tasks"].pop("piqa"), "check 'piqa_accuracy' needs benchmark 'piqa', which is not evaluated"),
        (lambda p: p["evaluate"].update(role="development"), "check 'stereoset_bias' needs benchmark 'stereoset', which"),
        (lambda p: p.update(matrix=[]), "matrix: no recipe"),
        (lambda p: p.update(recipes=5), "recipes: not a mapping of recipes"),
        (lambda p: p.update(recipes={}), "recipes: not a mapping of recipes"),
        (lambda p: p.update(model=5), "model: the model's name is not a text"),
        (lambda p: p.update(register=None), "register: not a mapping of keys"),
        (lambda p: p.update(matrix=None), "matrix: not a list of recipe names"),
        (lambda p: p["quantize"].update(batch_tokens=0), "batch_tokens"),
    ],
)
def test_what_would_fail_a_late_stage_is_said_at_once(tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    wrong = shipped()
    change(wrong)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(FairgateError, match=message):
        check_params(tmp_path)


@pytest.mark.parametrize("section", ["calibrate", "evaluate", "gate", "matrix", "model", "quantize", "recipes", "register"])
def test_a_section_that_a_stage_reads_must_be_there(tmp_path: Path, section: str) -> None:
    params = shipped()
    del params[section]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(REPOSITORY / "dvc.yaml", tmp_path)
    with pytest.raises(FairgateError, match=f"{section!r} is missing, which stage '[a-z_]+' reads"):
        check_params(tmp_path)


def test_without_tasks_every_benchmark_is_evaluated(tmp_path: Path) -> None:
    params = shipped()
    params["evaluate"]["tasks"] = {}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    check_params(tmp_path)
