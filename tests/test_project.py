"""The project's own promises about its files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml
from dvc.repo import Repo

from fairgate.decision.policy import read_policy
from fairgate.support.params import load, read_params
from stages.calibrate.stage import Settings
from stages.evaluate.settings import Evaluate
from stages.quantize.settings import RunSettings, read_recipe
from tests.pipeline import dvc, environment
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
    load(RunSettings, "quantize", PARAMS)
    assert all(check.reason for check in read_policy(PARAMS).checks)
    params = read_params(PARAMS)
    for name, settings in params["recipes"].items():
        if settings["method"] != "none":
            read_recipe(name, PARAMS)
    assert set(params["matrix"]) < set(params["recipes"])
    assert params["gate"]["candidate"] in params["matrix"]
    assert params["gate"]["reference"] in params["recipes"]


def test_every_parameter_that_a_stage_reads_is_declared(stages: dict[str, dict[str, Any]]) -> None:
    """Sections are read by literal keys: load(..., "key"), pick(..., "key"), params["key"].

    A stage that reads one must list it.
    """
    sections = set(read_params(PARAMS))
    for name, stage in stages.items():
        source = "\n".join(path.read_text() for path in (REPOSITORY / "stages" / _folder(name)).rglob("*.py"))
        read = {
            key
            for key in re.findall(r'(?:load\(\w+, |pick\([^)\n]*?\)?, |params\[|settings\[|\.get\()"(\w+)[."]', source)
            if key in sections
        }
        declared = {str(param).split(".")[0] for param in stage.get("params", [])}
        # A recipe tells evaluate only where its model lies, which is a dependency; the gate looks
        # its candidate's name up.
        free = {"recipes"} if _folder(name) in ("evaluate", "gate") else set()
        assert read - declared - free == set(), f"stage {name} reads {read - declared - free} without declaring it"


def _code(stage: dict[str, Any]) -> set[str]:
    """The folders of code that a stage declares, as dotted names."""
    return {dep.replace("/", ".") for dep in stage["deps"] if dep.startswith(("fairgate/", "stages/")) and not Path(dep).suffix}


def test_every_stage_depends_on_the_code_that_it_uses(stages: dict[str, dict[str, Any]]) -> None:
    """Both ways: what it imports, however far away, is declared; what is declared is imported."""
    graph = grimp.build_graph("fairgate", "stages", cache_dir=None)
    for name, stage in stages.items():
        declared, front = _code(stage), f"stages.{_folder(name)}.__main__"
        used = {front} | graph.find_upstream_modules(front)
        packages = {module for module in used if graph.find_children(module)}
        outside = {module for module in used - packages if not any(f"{module}.".startswith(f"{part}.") for part in declared)}
        assert outside == set(), f"stage {name} does not declare {sorted(outside)}"
        unused = {part for part in declared if not any(f"{module}.".startswith(f"{part}.") for module in used)}
        assert unused == set(), f"stage {name} declares {sorted(unused)}, which it does not use"


def test_a_new_metric_runs_neither_fetch_nor_calibrate_nor_quantize_again(tmp_path: Path) -> None:
    files = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines()
    for file in (file for file in files if file.startswith(("fairgate/", "stages/", "constraints", "dvc.yaml", "params.yaml"))):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / file, tmp_path / file)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = True\n    analytics = false\n")
    # Every stage has run: its outputs are there, and the lock knows them
    index = Repo(str(tmp_path)).index
    for path in (tmp_path / node.def_path for node in [*index.deps, *index.outs]):
        file = path if path.suffix else path / "file"
        if not path.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("made up")
    dvc(tmp_path, "commit", "--force")
    assert json.loads(dvc(tmp_path, "status", "--json")) == {}
    with (tmp_path / "fairgate/benchmarks/stereoset/statistics.py").open("a") as file:
        file.write("\n# A new metric.\n")
    changed = {stage.partition("@")[0] for stage in json.loads(dvc(tmp_path, "status", "--json"))}
    assert changed == {"evaluate", "evaluate_base", "gate", "report"}


@pytest.mark.parametrize("stage", ["quantize", "evaluate"])
def test_dvc_hands_a_recipe_to_the_shell_as_one_word(tmp_path: Path, stages: dict[str, dict[str, Any]], stage: str) -> None:
    """DVC reads no rule of ours: the stage's own refusal must be all that such a name comes to."""
    name = "rtn; touch PWNED; true"
    alone = {"matrix": {"recipe": "${matrix}"}, "cmd": stages[stage]["cmd"], "params": ["matrix"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {stage: alone}}))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"matrix": [name], "recipes": {name: {"method": "rtn"}}}))
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = True\n    analytics = false\n")
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0 and "cannot be the name of a recipe" in done.stderr
    assert not (tmp_path / "PWNED").exists()


def test_no_output_lies_inside_another(stages: dict[str, dict[str, Any]]) -> None:
    outs = sorted(out if isinstance(out, str) else next(iter(out)) for stage in stages.values() for out in stage["outs"])
    assert len(outs) == len(set(outs))
    assert not [(a, b) for a in outs for b in outs if b.startswith(f"{a}/")]


def test_constraints_hold_the_pins_of_pyproject() -> None:
    pins = re.findall(r'"([\w.-]+)(?:\[\w+\])?==([\w.]+)"', (REPOSITORY / "pyproject.toml").read_text())
    frozen = dict(
        line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().lower().replace("_", "-").split("\n") if "==" in line
    )
    assert len(pins) > 10
    for name, version in pins:
        assert frozen[name.lower().replace("_", "-")] == version
