"""The release flow over a real DVC project, a real registry and a real Prefect server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import load_yaml

from fairgate.__main__ import main as fairgate
from fairgate.contracts.records import Registration, Verdict, read_record
from fairgate.support.errors import FairgateError
from fairgate.support.params import read_params
from flows import release as command_line
from flows.dvc_runner import TOKEN, StageResult
from flows.lock import ReleaseRunning, lock_project
from flows.outcome import lost, summary
from flows.release import main, parser, set_model
from stages.register.registry import Registry
from tests.flows.test_dvc_runner import is_gone, wait_for
from tests.mlflow_database import migrated, own_tracking, seed  # noqa: F401
from tests.pipeline import SLOW, environment, make_pipeline, receipt_path
from tests.project import CANDIDATE, REPOSITORY, write_verdict

pytestmark = pytest.mark.usefixtures("own_tracking")


@pytest.fixture
def project(tmp_path: Path, migrated: Path) -> Path:  # noqa: F811
    return seed(make_pipeline(tmp_path / "project"), migrated)


def outcome(state: object) -> dict[str, bool]:
    return {result["stage"]: result["changed"] for result in state.result()}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("prefect_server")
def test_release_runs_reuses_and_registers_again_what_was_lost(
    project: Path,
    migrated: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    from prefect.client.orchestration import get_client

    from flows.deployments import BUG, ERROR, release

    first = release(str(project), return_state=True)
    assert outcome(first) == {"first": True, "second@a": True, "second@b": True, "register": True}
    said = capsys.readouterr().out
    assert "Verdict on fair_gptq: approve" in said and "Registered: fairgate-tiny version 1, alias candidate" in said
    assert str(project / "data/reports/index.html") in said
    again = release(str(project), return_state=True)
    assert set(outcome(again).values()) == {False}
    receipt = read_record(Registration, receipt_path(project))

    seed(project, migrated)
    recovered = release(str(project), return_state=True)
    assert "registering again" in capsys.readouterr().out
    assert outcome(recovered)["register"] is True and len(recovered.result()) == 5
    assert lost(project) == [] and read_record(Registration, receipt_path(project)).run_id != receipt.run_id

    with get_client(sync_client=True) as client:
        runs = client.read_task_runs()
        assert {run.name for run in runs} == {"first", "second@a", "second@b", "register"}
        assert {artifact.key for artifact in client.read_artifacts()} == {"verdict", "stages"}

    (project / "first.py").write_text("import sys\nsys.exit('fairgate: error: no such recipe')")
    failed = release(str(project), return_state=True)
    assert failed.is_failed() and (failed.name, failed.message) == (ERROR, "first: no such recipe")
    # What a stage's frame says and exits with after an unexpected exception.
    (project / "first.py").write_text("import sys\nprint('fairgate: error: this is a bug', file=sys.stderr)\nsys.exit(4)")
    failed = release(str(project), return_state=True)
    assert failed.is_failed() and (failed.name, failed.message) == (BUG, "first: this is a bug")
    assert (project / ".fairgate/release.lock").read_text() == ""


@pytest.mark.usefixtures("prefect_server")
def test_red_gate_is_a_result(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(command_line, "check_params", lambda root: None)  # the small pipeline has no sections for it
    monkeypatch.setenv(TOKEN, "")  # the release sets it; it goes back after the test
    write_verdict(project, Verdict.reject)
    assert fairgate(["release"]) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("The pipeline ran to its end. Verdict: reject; exit code 1 (a negative answer")
    assert "Verdict on fair_gptq: reject" in said and "religion: harm 5.0" in said
    assert "no version, because the gate said reject" in said
    assert Registry(project).aliases("fairgate-tiny") == {}


def test_receipt_that_is_missing_or_of_another_verdict_is_a_loss(project: Path) -> None:
    assert lost(project) == ["the receipt"]
    from stages.register.stage import register

    register(project, Path("params.yaml"))
    os.environ["MLFLOW_TRACKING_URI"] = ""
    assert lost(project) == []
    assert "version 1" in summary(project, [StageResult("register", True, 1.0)])
    write_verdict(project, Verdict.reject)
    assert lost(project) == ["a receipt of this verdict"]


def test_model_is_written_to_the_parameters_and_comments_stay(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "params.yaml"
    shutil.copy(source, tmp_path / "params.yaml")
    set_model(tmp_path, "owner/name@" + "a" * 40)
    text = (tmp_path / "params.yaml").read_text()
    assert yaml.safe_load(text)["model"] == "owner/name@" + "a" * 40
    assert {line.strip() for line in source.read_text().splitlines() if line.startswith("#")} <= {
        line.strip() for line in text.splitlines()
    }
    before = yaml.safe_load(source.read_text())
    assert {**yaml.safe_load(text), "model": before["model"]} == before


@pytest.mark.parametrize("model", ["no", "010", "1e3", "./a: b", "./模型 甲", '/a "quoted" one', "2026-11-30", "y", "=", "~"])
def test_every_reader_reads_the_model_that_was_written(tmp_path: Path, model: str) -> None:
    (tmp_path / "params.yaml").write_text("model: tiny\n")
    set_model(tmp_path, model)
    assert read_params(tmp_path / "params.yaml") == load_yaml(tmp_path / "params.yaml") == {"model": model}


def test_a_model_that_nothing_can_be_called_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("model: tiny\n")
    with pytest.raises(FairgateError, match="--model: the model's name is empty"):
        set_model(tmp_path, " ")
    assert (tmp_path / "params.yaml").read_text() == "model: tiny\n"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("  gptq: {", '  "rtn;touch PWNED;true": {', "'rtn;touch PWNED;true' cannot be the name of a recipe"),
        ("  gptq: {", "  no: {", "params.yaml:38: recipes: no is a boolean to some readers"),
        ("    alpha: 0.1", "    alpha: 0.1\n    alpha: 7.5", "recipes.fair_gptq.alpha: stands twice"),
        ("  seed: 0", "  seed: 010", "params.yaml:10: calibrate.seed: 010 is not read alike by every reader"),
    ],
)
def test_parameters_that_are_read_in_two_ways_stop_a_release_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], before: str, after: str, said: str
) -> None:
    text = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
    assert before in text
    (tmp_path / "params.yaml").write_text(text.replace(before, after, 1), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert fairgate(["release"]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("asked", [["--serve"], ["--cron", "* * * * *"]])
def test_serving_leaves_a_running_release_its_model_and_checks_the_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    def served(root: Path, services: bool) -> None:
        pytest.fail("served")  # instead of serving for ever

    monkeypatch.setattr(command_line, "prefect_server", served)
    path = tmp_path / "params.yaml"
    path.write_text("model: tiny\nmatrix: 7\n")
    with lock_project(tmp_path), pytest.raises(ReleaseRunning):
        main(parser("release").parse_args([*asked, "--model", "other"]), tmp_path)
    assert yaml.safe_load(path.read_text())["model"] == "tiny"
    with pytest.raises(FairgateError, match="matrix: not a list"):
        main(parser("release").parse_args(asked), tmp_path)


@pytest.mark.usefixtures("prefect_server")
def test_an_exception_of_the_flow_itself_is_a_bug(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows import deployments

    def broken(root: Path) -> list[str]:
        raise ZeroDivisionError("on purpose")

    monkeypatch.chdir(project)
    monkeypatch.setattr(command_line, "check_params", lambda root: None)
    monkeypatch.setattr(deployments.dvc_runner, "stage_names", broken)
    monkeypatch.setenv(TOKEN, "")
    assert fairgate(["release"]) == 4
    assert "this is a bug in fairgate (ZeroDivisionError: on purpose)" in capsys.readouterr().err
    assert "in broken" in (project / ".fairgate/tracebacks/release.txt").read_text()


def command(project: Path, *arguments: str, **extra: str) -> subprocess.Popen[str]:
    """`python -m flows.release` as a user starts it.

    Nothing of the test suite's own server is in its environment.
    """
    clean = {name: value for name, value in environment().items() if not name.startswith("PREFECT_")}
    # A shell's background job ignores Ctrl-C, and its children inherit that. They do not inherit a
    # handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", "flows.release", *arguments],
        cwd=project,
        env={**clean, **extra},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


@pytest.mark.services
def test_ctrl_c_ends_everything_and_the_next_release_goes_on(project: Path) -> None:
    working = (project / "second.py").read_text()
    (project / "second.py").write_text(SLOW)
    release = command(project)
    child = wait_for(project / "pids.txt")

    started = time.monotonic()
    second = command(project)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 2 and f"another release is running: process {release.pid} on" in said
    assert time.monotonic() - started < 15

    os.killpg(release.pid, signal.SIGINT)  # what a terminal does: every process in the foreground gets it
    said, _ = release.communicate(timeout=60)
    assert release.returncode == 130 and "Traceback" not in said, said
    assert is_gone(child)

    (project / "second.py").write_text(working)
    third = command(project, "--model", "other")
    said, _ = third.communicate(timeout=300)
    assert third.returncode == 0, said
    assert "Registered: fairgate-other version 1" in said
    assert (project / f"data/reports/{CANDIDATE}/registered.json").is_file()


@pytest.mark.services
def test_release_is_served_on_a_schedule(project: Path) -> None:
    serving = command(project, "--cron", "* * * * *")
    try:
        wait = time.monotonic() + 180
        while not receipt_path(project).exists():
            assert time.monotonic() < wait and serving.poll() is None
            time.sleep(1)
    finally:
        os.killpg(serving.pid, signal.SIGINT)
        serving.communicate(timeout=60)


@pytest.mark.services
def test_release_needs_no_network_and_so_no_proxy(project: Path) -> None:
    nowhere = "127.0.0.1:9"
    proxies = {"HTTP_PROXY": f"http://{nowhere}", "http_proxy": f"http://{nowhere}", "ALL_PROXY": f"socks5://{nowhere}"}
    release = command(project, NO_PROXY="", no_proxy="", **proxies)
    said, _ = release.communicate(timeout=300)
    assert release.returncode == 0 and "Registered: fairgate-tiny version 1" in said, said


@pytest.mark.services
def test_a_release_that_fails_ends_with_the_reason_alone(project: Path) -> None:
    """Nothing is told of a server that has gone when the last words are to be recorded there."""
    (project / ".dvc/tmp").mkdir(exist_ok=True)
    (project / ".dvc/tmp/rwlock").touch()
    release = command(project)
    said, _ = release.communicate(timeout=120)
    assert release.returncode == 2, said
    assert said.splitlines()[-2].startswith("fairgate: error: ") and said.splitlines()[-1].startswith("Remedy: "), said
    assert "Error logging" not in said and "Traceback" not in said
