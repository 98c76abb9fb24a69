"""MLflow and Prefect on PostgreSQL, DVC's remote on an S3 server."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairgate.contracts.records import Registration, read_record
from fairgate.support.errors import FairgateError
from flows.preflight import check_registry
from tests.flows.test_release import command
from tests.pipeline import dvc, environment, make_dvc, make_pipeline, receipt_path

pytestmark = pytest.mark.services


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str:
    """A PostgreSQL program; Debian keeps the server's own outside PATH."""
    found = shutil.which(name) or next((str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if not found:
        pytest.skip(f"no {name}: install the package postgresql")
    return found


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a fresh PostgreSQL with the databases `mlflow` and `prefect`.

    User and password are `fairgate`. PostgreSQL refuses to run as root; then the user `postgres`,
    which its package makes, runs it.
    """
    initdb, pg_ctl, psql = _program("initdb"), _program("pg_ctl"), _program("psql")
    folder = Path("/tmp") / f"fairgate-postgres-{os.getpid()}"
    folder.mkdir(mode=0o700)
    user = "postgres" if getpass.getuser() == "root" else None
    if user:
        shutil.chown(folder, user)
    (folder / "password").write_text("fairgate")
    (folder / "password").chmod(0o644)
    data, port = str(folder / "data"), free_port()

    def run(*arguments: str) -> None:
        clean = {"PATH": os.environ["PATH"], "PGPASSWORD": "fairgate", "LC_ALL": "C"}
        done = subprocess.run(arguments, cwd=folder, user=user, env=clean, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    run(initdb, "-D", data, "-U", "fairgate", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "-E", "UTF8")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run(pg_ctl, "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        for name in ("mlflow", "prefect"):
            run(psql, "-h", "127.0.0.1", "-p", str(port), "-U", "fairgate", "-d", "postgres", "-c", f"CREATE DATABASE {name}")
        yield f"127.0.0.1:{port}"
    finally:
        run(pg_ctl, "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_release_on_postgresql(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_pipeline(tmp_path / "project")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://fairgate:fairgate@{postgres}/mlflow")
    database = f"postgresql+asyncpg://fairgate:fairgate@{postgres}/prefect"
    release = command(project, PREFECT_SERVER_DATABASE_CONNECTION_URL=database)
    said, _ = release.communicate(timeout=300)
    assert release.returncode == 0, said
    assert "Registered: fairgate-tiny version 1" in said
    receipt = read_record(Registration, receipt_path(project))
    assert receipt.tracking_uri == f"postgresql+psycopg2://{postgres}/mlflow"
    assert "fairgate:fairgate" not in said and not (project / "mlflow.db").exists()


def test_a_wrong_password_is_said_at_once(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://fairgate:s3cret@{postgres}/mlflow")
    started = time.monotonic()
    with pytest.raises(FairgateError, match="password authentication failed") as error:
        check_registry(tmp_path)
    assert time.monotonic() - started < 10 and "s3cret" not in str(error.value)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_remote_brings_back_outputs_and_earlier_runs(s3: str, tmp_path: Path) -> None:
    import boto3

    boto3.client("s3", endpoint_url=s3).create_bucket(Bucket="fairgate")
    (tmp_path / "project").mkdir()
    project = make_dvc(tmp_path / "project")
    dvc(project, "remote", "add", "-d", "s3", "s3://fairgate/dvc")
    dvc(project, "remote", "modify", "--local", "s3", "endpointurl", s3)
    for model in ("other", "tiny"):
        (project / "params.yaml").write_text(f"model: {model}\n")
        dvc(project, "repro")
    dvc(project, "push", "--run-cache")
    for gone in ("data", ".dvc/cache"):
        shutil.rmtree(project / gone)
    dvc(project, "pull", "--run-cache")
    assert (project / "data/last.txt").exists()
    assert "first" not in dvc(project, "status")
    # The run with the other parameter is known to this copy only through the run cache.
    (project / "params.yaml").write_text("model: other\n")
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=project, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "Stage 'first' is cached" in done.stdout, done.stdout + done.stderr
