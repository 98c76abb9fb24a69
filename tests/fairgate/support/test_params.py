"""Reading parameters: damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fairgate.decision.policy import Policy
from fairgate.support.errors import FairgateError
from fairgate.support.params import Section, load, read_params
from stages.calibrate.stage import Settings as Calibrate
from stages.evaluate.settings import Evaluate
from stages.quantize.settings import RunSettings
from tests.project import REPOSITORY


@pytest.mark.parametrize("content", [b"a: [1", b"a: \xff"])
def test_a_broken_parameter_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(FairgateError, match=r"params.yaml: not valid YAML"):
        read_params(tmp_path / "params.yaml")


def refused(tmp_path: Path, model: type[Section], key: str, field: str, value: object) -> None:
    """The value of params.yaml's section is refused, by name."""
    params = read_params(REPOSITORY / "params.yaml")
    params[key][field] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(FairgateError, match=rf"params.yaml:{key}: {field}: Input should be"):
        load(model, key, tmp_path / "params.yaml")


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, 10**30])
@pytest.mark.parametrize(("model", "key"), [(Calibrate, "calibrate"), (RunSettings, "quantize"), (Evaluate, "evaluate"), (Policy, "gate")])
def test_a_seed_that_a_generator_does_not_take_is_refused(tmp_path: Path, model: type[Section], key: str, seed: int) -> None:
    refused(tmp_path, model, key, "seed", seed)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_without_end_is_refused(tmp_path: Path, value: float) -> None:
    refused(tmp_path, RunSettings, "quantize", "gpu_gib", value)


@pytest.mark.parametrize("draws", [10_000_001, 10**9, 10**30])
def test_draws_that_would_run_for_ever_are_refused(tmp_path: Path, draws: int) -> None:
    refused(tmp_path, Policy, "gate", "draws", draws)
