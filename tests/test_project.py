"""The project's own promises about its files."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from fairgate.decision.policy import read_policy
from fairgate.support.params import load, read_params
from stages.calibrate.stage import Settings
from stages.evaluate.settings import Evaluate
from stages.quantize.settings import Run, read_recipe
from tests.project import REPOSITORY

PARAMS = REPOSITORY / "params.yaml"


@pytest.fixture(scope="module")
def stages() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]


def _folder(stage: str) -> str:
    return stage.split("_")[0]


def test_every_parameter_section_is_valid() -> None:
    load(Settings, "calibrate", PARAMS)
    load(Evaluate, "evaluate", PARAMS)
    load(Run, "quantize", PARAMS)
    assert all(check.reason for check in read_policy(PARAMS).checks)
    params = read_params(PARAMS)
    for name, settings in params["recipes"].items():
        if settings["method"] != "none":
            read_recipe(name, PARAMS)
    assert set(params["matrix"]) < set(params["recipes"])
    assert params["gate"]["candidate"] in params["matrix"]
    assert params["gate"]["reference"] in params["recipes"]


def test_every_parameter_that_a_stage_reads_is_declared(stages: dict[str, dict[str, Any]]) -> None:
    """Sections are read by literal keys: load(..., "key"), pick(..., "key"), params["key"]. A stage that reads one must list it."""
    sections = set(read_params(PARAMS))
    for name, stage in stages.items():
        source = "\n".join(path.read_text() for path in (REPOSITORY / "stages" / _folder(name)).rglob("*.py"))
        read = {
            key
            for key in re.findall(r'(?:load\(\w+, |pick\([^)\n]*?\)?, |params\[|settings\[|\.get\()"(\w+)[."]', source)
            if key in sections
        }
        declared = {str(param).split(".")[0] for param in stage.get("params", [])}
        # A recipe tells evaluate only where its model lies, which is a dependency; the gate looks its candidate's name up.
        free = {"recipes"} if _folder(name) in ("evaluate", "gate") else set()
        assert read - declared - free == set(), f"stage {name} reads {read - declared - free} without declaring it"


def test_every_stage_depends_on_its_own_code(stages: dict[str, dict[str, Any]]) -> None:
    for name, stage in stages.items():
        assert {"fairgate/support", f"stages/{_folder(name)}"} <= set(stage["deps"]), name


def test_no_output_lies_inside_another(stages: dict[str, dict[str, Any]]) -> None:
    outs = sorted(out if isinstance(out, str) else next(iter(out)) for stage in stages.values() for out in stage["outs"])
    assert len(outs) == len(set(outs))
    assert not [(a, b) for a in outs for b in outs if b.startswith(f"{a}/")]


def test_only_register_imports_mlflow_and_only_flows_import_prefect() -> None:
    for path in (REPOSITORY / "stages").rglob("*.py"):
        imports = set(re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.M))
        stage = path.relative_to(REPOSITORY / "stages").parts[0]
        assert "prefect" not in imports, path
        assert "mlflow" not in imports or stage == "register", path
        assert "dvc" not in imports, path
        used = set(re.findall(r"^\s*(?:import|from) stages\.(\w+)", path.read_text(), re.M))
        assert used <= {stage}, path


def test_constraints_hold_the_pins_of_pyproject() -> None:
    pins = re.findall(r'"([\w.-]+)(?:\[\w+\])?==([\w.]+)"', (REPOSITORY / "pyproject.toml").read_text())
    frozen = dict(
        line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().lower().replace("_", "-").split("\n") if "==" in line
    )
    assert len(pins) > 10
    for name, version in pins:
        assert frozen[name.lower().replace("_", "-")] == version
