from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fairgate.contracts.records import Registration, Verdict, read_record
from fairgate.support.errors import FairgateError
from stages.quantize.methods.rtn import Rtn
from stages.quantize.settings import RunSettings
from stages.quantize.stage import quantize
from stages.register.environment import without_credentials
from stages.register.evidence import BrokenBinding
from stages.register.naming import BASE, model_name, registered_name
from stages.register.registry import CANDIDATE, Registry
from stages.register.stage import register, requirements
from tests.mlflow_database import migrated, own_tracking, seed  # noqa: F401
from tests.pipeline import environment
from tests.project import CANDIDATE as RECIPE
from tests.project import make_project, params, write_verdict
from tests.tiny import make_tiny_llama

pytestmark = pytest.mark.usefixtures("own_tracking")
PARAMS = Path("params.yaml")
NAME = "fairgate-tiny"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def packed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in 4 bits, by the stage that makes candidates."""
    out = tmp_path_factory.mktemp("packed") / "model"
    recipe = Rtn(method="rtn", bits=4, group_size=32, symmetric=True)
    quantize(
        "rtn",
        recipe,
        RunSettings(device="cpu", seed=0, batch_tokens=256),
        checkpoint,
        tmp_path_factory.mktemp("none"),
        out,
        out.parent / "work",
    )
    return out


@pytest.fixture
def project(tmp_path: Path, checkpoint: Path, migrated: Path) -> Path:  # noqa: F811
    return seed(make_project(tmp_path, checkpoint=checkpoint), migrated)


def run_register(root: Path) -> Registration:
    # A run sets MLFLOW_TRACKING_URI; the project's own database is meant each time.
    os.environ["MLFLOW_TRACKING_URI"] = ""
    receipt = register(root, PARAMS)
    os.environ["MLFLOW_TRACKING_URI"] = ""
    return receipt


def count(root: Path) -> tuple[int, int]:
    """Runs and versions in the project's registry."""
    client = Registry(root).client
    experiment = client.get_experiment_by_name("fairgate")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return len(runs), len(client.search_model_versions(f"name = '{NAME}'"))


def test_approved_candidate_generates_from_an_empty_folder(
    tmp_path: Path,
    packed: Path,
    migrated: Path,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    project = seed(make_project(tmp_path, checkpoint=packed), migrated)
    receipt = run_register(project)
    assert (receipt.model_name, receipt.model_version) == (NAME, "1")
    # Neither the project's data nor its code is within reach: what MLflow stored must be enough.
    for gone in ("data", "params.yaml", "dvc.lock"):
        (shutil.rmtree if (project / gone).is_dir() else os.unlink)(project / gone)
    script = f"import json, mlflow; print(json.dumps(mlflow.pyfunc.load_model('models:/{NAME}@{CANDIDATE}').predict(['The pilot', 'A'])))"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": receipt.tracking_uri, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.modules['stages'] = None\n{script}"],
        cwd=tmp_path_factory.mktemp("empty"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers) and any(answers)


def test_run_records_what_the_verdict_rests_on(project: Path) -> None:
    receipt = run_register(project)
    registry = Registry(project)
    run = registry.client.get_run(receipt.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe.bits"] == "4" and run.data.params["gate.reference"] == "base"
    assert run.data.metrics["stereoset.ss"] == 50.5 and run.data.metrics["base/piqa.acc"] == 0.6
    version = registry.version(NAME, "1")
    for tag in ("gate.verdict", "gate.policy_sha", "dvc.lock_sha", "model.sha", "verdict.sha", "env.sha"):
        assert run.data.tags[tag] == version.tags[tag]
    assert version.tags["model.sha"] == receipt.weight_digest
    digests = {found.dataset.name: found.dataset.digest for found in run.inputs.dataset_inputs}
    assert digests["pairs"] == "c" * 36 and len(digests["stereoset"]) == 36 and "evaluation/base/items.parquet" in digests
    stored = {item.path for item in registry.client.list_artifacts(receipt.run_id, "evidence")}
    assert {"evidence/params.yaml", "evidence/dvc.lock", "evidence/constraints.txt", "evidence/data"} <= stored
    model = registry.download(f"models:/{NAME}/1", project / "downloaded")
    assert (model / "artifacts/checkpoint/README.md").read_text() == "# A tiny model\n"


def test_a_recipe_that_left_the_matrix_is_not_recorded(project: Path) -> None:
    stale = project / "data/evaluation/former"
    stale.mkdir()
    (stale / "metrics.json").write_text('{"stereoset.ss": 1.0}')
    run = Registry(project).run(run_register(project).run_id)
    assert run is not None
    assert "base/stereoset.ss" in run.data.metrics and not [key for key in run.data.metrics if key.startswith("former")]


@pytest.mark.parametrize("verdict", [Verdict.reject, Verdict.inconclusive])
def test_anything_but_approve_is_a_run_with_reasons_and_no_version(project: Path, verdict: Verdict) -> None:
    write_verdict(project, verdict)
    receipt = run_register(project)
    assert receipt.model_version is None and receipt.reasons
    run = Registry(project).client.get_run(receipt.run_id)
    assert run.data.tags["gate.verdict"] == verdict and "religion" in run.data.tags["gate.reasons"]
    assert "religion" in run.data.tags["mlflow.note.content"]
    outcome = json.loads((project / f"data/reports/{RECIPE}/registered.json").read_text())
    assert outcome["registered"] is False and outcome["reasons"] == receipt.reasons
    run_register(project)
    assert count(project) == (1, 0)


def test_alias_that_a_later_verdict_took_away_is_no_loss(project: Path) -> None:
    approved = run_register(project)
    write_verdict(project, Verdict.reject)
    run_register(project)
    assert Registry(project).aliases(NAME) == {} and Registry(project).lost(approved) == []


def test_verdict_that_replaces_another_on_the_same_weights_is_recorded_and_moves_the_alias(project: Path) -> None:
    run_register(project)
    for verdict, counts, aliases in (
        (Verdict.reject, (2, 1), {}),
        (Verdict.reject, (2, 1), {}),
        (Verdict.approve, (3, 2), {CANDIDATE: "2"}),
        (Verdict.reject, (4, 2), {}),
    ):
        write_verdict(project, verdict)
        run_register(project)
        assert count(project) == counts and Registry(project).aliases(NAME) == aliases


def test_rejected_weights_leave_the_alias_of_others_alone(project: Path) -> None:
    run_register(project)
    Registry(project).tag_version(NAME, "1", {"model.sha": "0" * 64})
    write_verdict(project, Verdict.reject)
    run_register(project)
    assert Registry(project).aliases(NAME) == {CANDIDATE: "1"}


def test_twice_on_the_same_inputs_registers_nothing_twice(project: Path) -> None:
    first = run_register(project)
    output = project / f"data/reports/{RECIPE}/registered.json"
    before = output.read_bytes()
    Registry(project).move_alias(NAME, CANDIDATE, None)
    second = run_register(project)
    assert first == second == read_record(Registration, output.with_name("registration.json"))
    assert output.read_bytes() == before and first.run_id.encode() not in before
    assert count(project) == (1, 1)
    assert Registry(project).aliases(NAME) == {CANDIDATE: "1"}


def test_lost_registry_is_noticed_and_registered_again(project: Path, migrated: Path) -> None:  # noqa: F811
    receipt = run_register(project)
    assert Registry(project).lost(receipt) == []
    Registry(project).move_alias(NAME, CANDIDATE, None)
    assert Registry(project).lost(receipt) == ["alias candidate"]
    seed(project, migrated)
    assert len(Registry(project).lost(receipt)) == 3
    assert Registry(project).lost(run_register(project)) == []
    assert count(project) == (1, 1)


def test_deleted_run_of_a_version_is_recorded_again(project: Path) -> None:
    receipt = run_register(project)
    Registry(project).client.delete_run(receipt.run_id)
    again = run_register(project)
    assert again.run_id != receipt.run_id and again.model_version == "2"
    assert Registry(project).lost(again) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("policy", "policy"),
        (f"data/reports/{RECIPE}/checkpoint/model.safetensors", "weights"),
        (f"data/reports/{RECIPE}/checkpoint/config.json", "config.json"),
        ("data/evaluation/base/items.parquet", "data/evaluation/base/items.parquet has changed"),
        (f"data/models/{RECIPE}/quantization.json", "quantization.json has changed"),
        ("remove", "items.parquet of the verdict is missing"),
    ],
)
def test_verdict_that_does_not_belong_to_the_files_is_refused(project: Path, change: str, named: str) -> None:
    if change == "policy":
        loosened = params()
        loosened["gate"]["confidence"] = 0.5
        (project / "params.yaml").write_text(yaml.safe_dump(loosened))
    elif change == "remove":
        (project / "data/evaluation/base/items.parquet").unlink()
    else:
        with (project / change).open("ab") as file:
            file.write(b" ")
    with pytest.raises(BrokenBinding, match=named):
        run_register(project)
    assert count(project) == (0, 0)


def test_missing_verdict_names_the_stage_that_writes_it(project: Path) -> None:
    (project / f"data/reports/{RECIPE}/verdict.json").unlink()
    with pytest.raises(FairgateError, match="dvc repro gate"):
        run_register(project)


@pytest.mark.parametrize("scheme", ["http://user:secret@{}", "postgresql://user:secret@{}/mlflow"])
def test_unreachable_server_fails_within_seconds_and_keeps_its_secret(project: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", scheme.format(address))
    started = time.monotonic()
    with pytest.raises(FairgateError, match="no tracking server answers") as error:
        register(project, PARAMS)
    assert time.monotonic() - started < 10
    assert address in str(error.value) and "secret" not in str(error.value)


def test_credentials_never_reach_the_receipt() -> None:
    assert without_credentials("https://user:pw@host:5000/a?token=1") == "https://host:5000/a"
    assert without_credentials("sqlite:////tmp/mlflow.db") == "sqlite:////tmp/mlflow.db"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2-135m-instruct", "fairgate-smollm2-135m-instruct"),
        ("/models/My Model/", "fairgate-my-model"),
        ("owner/Llama-3.2-1B@" + "a" * 40, "fairgate-llama-3-2-1b"),
        ("/home/me@work/models/Tiny", "fairgate-tiny"),
        ("./模型甲", "fairgate-b006bbb3"),
        ("./模型乙", "fairgate-d1a4a36a"),
        ("Größe", "fairgate-gr-e-aedc3f80"),
        ("...", "fairgate-ab5df625"),
        ("m" * 247, f"fairgate-{'m' * 247}"),
        ("m" * 250, f"fairgate-{'m' * 238}-6ca616c2"),
    ],
)
def test_model_name_is_that_of_the_base(model: str, name: str) -> None:
    assert model_name(model) == name


def test_names_that_differ_stay_apart_and_one_name_in_two_spellings_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = ["模型甲", "模型乙", "модель", "модел", "tïny", "tiny", "!!!", "???", "m" * 250, "m" * 251]
    assert len({model_name(model) for model in models}) == len(models)
    assert model_name("e\u0301") == model_name("\u00e9")
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert model_name(".") == model_name("../mine") == "fairgate-mine"


def register_as(root: Path, model: str) -> str:
    """Register the candidate as one of `model`, and return the name that its version got."""
    (root / "params.yaml").write_text(yaml.safe_dump(params(model)))
    receipt = run_register(root)
    assert receipt.model_version == "1" and Registry(root).aliases(receipt.model_name) == {CANDIDATE: "1"}
    return receipt.model_name


def test_two_models_of_one_plain_name_share_no_versions(project: Path) -> None:
    models = ["./qwen2.5", "./qwen2-5", f"a/Qwen2.5@{'a' * 40}", f"b/qwen2.5@{'b' * 40}"]
    names = [register_as(project, model) for model in models]
    assert names[0] == "fairgate-qwen2-5" and len(set(names)) == len(models)
    registry = Registry(project)
    for name, model, base in zip(names, models, ["qwen2.5", "qwen2-5", "a/Qwen2.5", "b/qwen2.5"], strict=True):
        assert registered_name(registry, model) == name and registry.model_tags(name) == {BASE: base}
    assert registered_name(registry, f"a/Qwen2.5@{'c' * 40}") == names[2]  # another commit is the same model
    assert registered_name(registry, "/moved/qwen2.5/") == names[0]


def test_a_registry_without_the_tag_is_known_by_what_its_run_recorded(project: Path) -> None:
    name = register_as(project, "./Foo")
    registry = Registry(project)
    registry.client.delete_registered_model_tag(name, BASE)
    assert registered_name(registry, "Foo") == name != registered_name(registry, "foo")
    registry.client.delete_run(registry.latest_run(name))
    assert registered_name(registry, "foo") == name  # nothing is recorded any more: the model keeps its name


def test_what_an_earlier_run_left_in_the_environment_changes_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    approved = run_register(project)
    write_verdict(project, Verdict.reject)
    left = {
        "MLFLOW_RUN_ID": approved.run_id,
        "MLFLOW_EXPERIMENT_ID": "0",
        "MLFLOW_EXPERIMENT_NAME": "another",
        "MLFLOW_RUN_CONTEXT": '{"gate.verdict": "approve", "mlflow.user": "somebody"}',
    }
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    rejected = register(project, PARAMS)
    assert {name: os.environ.get(name) for name in left} == left
    for receipt, verdict in ((approved, "approve"), (rejected, "reject")):
        run = Registry(project).run(receipt.run_id)
        assert run is not None and run.data.tags["gate.verdict"] == verdict and run.data.tags["mlflow.user"] == getpass.getuser()
    assert rejected.run_id != approved.run_id and count(project) == (2, 1)


def test_a_user_without_a_name_registers_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", " ")
    for name in ("USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FairgateError, match="set LOGNAME"):
        run_register(project)
    assert count(project) == (0, 0)


def test_groups_that_mlflow_cannot_tell_apart_keep_their_values(project: Path) -> None:
    (project / f"data/evaluation/{RECIPE}/metrics.json").write_text('{"stereoset.ss.a+b": 1.0, "stereoset.ss.a,b": 2.0}')
    run = Registry(project).run(run_register(project).run_id)
    assert run is not None
    values = {key: value for key, value in run.data.metrics.items() if key.startswith("stereoset.ss.a_b")}
    assert sorted(values.values()) == [1.0, 2.0] and values["stereoset.ss.a_b"] == 1.0


def test_locale_time_zone_and_hooks_do_not_reach_the_record(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    for command in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "other"]):
        subprocess.run(["git", *command], cwd=other, check=True)
    odd = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "TZ": "Asia/Tokyo", "GIT_DIR": str(other / ".git")}
    (project / "params.yaml").write_text(yaml.safe_dump(params("./größe 模型")))
    write_verdict(project, Verdict.reject)
    records = []
    for extra in ({}, odd):
        done = subprocess.run(
            [sys.executable, "-m", "stages.register"], cwd=project, env=environment(**extra), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        receipt = read_record(Registration, project / f"data/reports/{RECIPE}/registration.json")
        run = Registry(project).client.get_run(receipt.run_id)
        records.append({**run.data.tags, **run.data.params, **run.data.metrics})
        assert abs(run.info.end_time / 1000 - time.time()) < 120
        Registry(project).client.delete_run(receipt.run_id)  # so that the next one is recorded anew
    assert records[0] == records[1]


def test_requirements_are_pinned_and_complete(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("Torch==2.0\n# comment\nmlflow==3.0\n")
    with pytest.raises(FairgateError, match="no pin for accelerate"):
        requirements(tmp_path / "constraints.txt")
    assert "torch==2.13.0" in requirements(Path(__file__).resolve().parents[3] / "constraints.txt")


@pytest.mark.parametrize(
    ("key", "value", "said"), [("matrix", None, " matrix: Input should be"), ("model", ["tiny"], "model: the model's name is not a text")]
)
def test_a_wrong_type_outside_its_section_is_named(project: Path, key: str, value: object, said: str) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(params() | {key: value}))
    with pytest.raises(FairgateError, match=rf"params.yaml:{said}"):
        register(project, PARAMS)
