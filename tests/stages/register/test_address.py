"""An address of MLflow that cannot be used is refused without a part of its password."""

from __future__ import annotations

import http.server
import os
import socket
import socketserver
import string
import time
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairgate.__main__ import main as fairgate
from fairgate.support.errors import FairgateError
from flows import release
from flows.preflight import check_registry
from stages.register.address import require_address
from stages.register.environment import require_reachable, set_environment, without_credentials
from stages.register.registry import Registry
from tests.pipeline import make_pipeline
from tests.servers import running


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://fair:s3cr/et@127.0.0.1:1/mlflow",
        "postgresql+psycopg2://fair:123/s3cr@127.0.0.1:1/mlflow",
        "http://fair:s3cr#et@host:5000",
        "https://fair:s3cr?et@host:5000",
        "http://fair:[s3cr@host",
        "mysql://fair:s3cr",
        "fair:s3cr@host:5000",
        "'http://fair:s3cr@host:5000'",
        "http://fair:s3cr@host:5000\n",
        "postgresql:fair:s3cr@host",
        "postgres://fair:s3cr@host/mlflow",
        "http://",
        "http:host:5000",
        "sqlite://",
        "sqlite:mlflow.db",
        "sqlite:///:memory:",
        "sqlite+pysqlite:///:memory:?timeout=5",
        "sqlite:///file:registry?mode=memory&cache=shared&uri=true",
    ],
)
def test_what_is_no_address_is_refused_without_its_password(uri: str) -> None:
    with pytest.raises(FairgateError, match=r"^MLFLOW_TRACKING_URI: .*\nRemedy: ") as error:
        require_reachable(uri)
    assert "s3cr" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:5000",
        "https://fair:s3%2Fcr%40et@host/prefix",
        "postgresql+psycopg2://fair:s3cr@host:5432/mlflow?sslmode=require",
        "postgresql:///mlflow?host=/var/run/postgresql",
        "databricks",
        "databricks://profile",
        "mlruns",
        "file:///srv/mlruns",
    ],
)
def test_an_address_of_mlflow_is_accepted(uri: str) -> None:
    require_address(uri)


_PASSWORDS = st.text(string.ascii_uppercase + "/@#?:&=%[] \n'\"é", min_size=4, max_size=20)


@given(
    password=_PASSWORDS,
    shape=st.sampled_from(["http://fair:{}@127.0.0.1:1", "postgresql://fair:{}@127.0.0.1:1/m", "mysql://{}@h", "https://fair:{}", "{}"]),
)
def test_no_part_of_any_password_is_said(password: str, shape: str) -> None:
    try:
        require_address(uri := shape.format(password))
    except FairgateError as error:
        said = str(error)
        assert not [word for word in "".join(c if c.isupper() else " " for c in password).split() if len(word) > 5 and word in said]
    else:
        assert "://" not in uri or "@" not in without_credentials(uri)


@given(password=_PASSWORDS)
def test_an_encoded_password_is_accepted_whatever_it_holds(password: str) -> None:
    require_address(f"postgresql://fair:{quote(password, safe='')}@127.0.0.1:1/mlflow")


@pytest.mark.parametrize("content", [b"no database " * 100, None])
def test_a_sqlite_file_that_cannot_be_used_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ("mlflow.db" if content else "no folder/mlflow.db")
    if content:
        path.write_bytes(content)
    with pytest.raises(FairgateError, match="database"):
        require_reachable(f"sqlite:///{path}")
    require_reachable(f"sqlite:///{tmp_path}/new.db")


def test_a_host_that_no_name_can_have_is_said() -> None:
    with pytest.raises(FairgateError, match="no tracking server answers"):
        require_reachable(f"http://{'a' * 70}.example:5000")


def test_a_database_that_lets_nobody_in_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg2")  # of the extra `distributed`

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            calls.append(self.client_address)

    calls: list[object] = []
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), HangUp)
    with running(server):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://fair:s3cret@127.0.0.1:{server.server_address[1]}/mlflow")
        with pytest.raises(FairgateError, match=r"MLflow failed: .*\nRemedy: ") as error:
            check_registry(tmp_path)
    assert len(calls) <= 3 and "s3cret" not in str(error.value)  # the port is tried, then the database with and without TLS


def test_a_server_that_is_not_mlflow_is_said_before_a_stage_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    foreign = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with running(foreign):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://fair:s3cr-et@127.0.0.1:{foreign.server_port}")
        with pytest.raises(FairgateError, match=r"MLflow failed[\s\S]*check the tracking server") as error:
            check_registry(tmp_path)
    assert "s3cr" not in str(error.value)


def test_a_server_that_never_answers_is_said_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment()
    patience = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(FairgateError, match=r"MLflow failed: .*timed out[\s\S]*Remedy: check the tracking server"):
            Registry(tmp_path)
    assert time.monotonic() - started < 12
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == patience  # a long upload needs it


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("postgresql://fair:s3cr/et@127.0.0.1:1/mlflow", "cannot be taken apart into user, password, host and port"),
        ("http://127.0.0.1:9", "no tracking server answers"),
        ("sqlite:////nowhere/mlflow.db", "no database can be made"),
    ],
)
def test_a_release_is_refused_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uri: str, reason: str
) -> None:
    project = make_pipeline(tmp_path / "project")
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(release, "check_params", lambda root: None)  # the small pipeline has no sections for it
    assert fairgate(["release"]) == 2
    said = "".join(capsys.readouterr())
    assert reason in said and "Remedy: " in said and "Traceback" not in said and "s3cr" not in said
    assert not (project / "data/first.txt").exists()


def test_a_registry_that_answers_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    check_registry(tmp_path)
    assert Registry(tmp_path).uri.startswith("sqlite:")
