"""What stands in the way of Prefect is said at once: its address, its home, proxies, a schedule."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairgate.__main__ import main as fairgate
from fairgate.support.errors import FairgateError
from flows import server
from flows.proxies import spare_local_servers, users_environment
from flows.server import prefect_server, require_schedule
from tests.flows.test_release import command
from tests.pipeline import make_dvc
from tests.servers import running

DEAD = "http://127.0.0.1:9"


@pytest.fixture
def answering() -> Iterator[dict[str, object]]:
    """A server that answers every request with the status and body that a test puts here."""
    answer: dict[str, object] = {"status": 200, "body": b"true"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(float(str(answer.get("after", 0))))
            self.send_response(int(str(answer["status"])))
            self.end_headers()
            self.wfile.write(bytes(answer["body"]))  # type: ignore[call-overload]

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answer["url"] = f"http://127.0.0.1:{server.server_port}"
    with running(server):
        yield answer


@pytest.mark.parametrize(
    "url",
    [
        "banana",
        "",
        "ftp://host/api",
        "http://",
        "http://host:port/api",
        "http://fair:s3cr/et@host/api",
        "127.0.0.1:4200/api",
        "http://[::1/api",
    ],
)
def test_what_is_no_address_of_a_server_is_said(url: str) -> None:
    with pytest.raises(FairgateError, match=r"PREFECT_API_URL: no address of a server[\s\S]*unset PREFECT_API_URL") as error:
        server._require_prefect(url)
    assert "s3cr" not in str(error.value)


def test_a_server_that_is_gone_or_silent_is_said(answering: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FairgateError, match=r"127\.0\.0\.1:9/api: no Prefect server answers \(.*refused[\s\S]*unset PREFECT_API_URL"):
        server._require_prefect(f"{DEAD}/api")
    monkeypatch.setattr(server, "ANSWER_S", 0.2)
    answering["after"] = 1
    with pytest.raises(FairgateError, match="no Prefect server answers"):
        server._require_prefect(f"{answering['url']}/api")


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"not found"), (200, b"<html>a page for every address</html>"), (200, b'{"database": "ok"}'), (200, b"\xff"), (403, b"")],
)
def test_another_kind_of_server_is_told_apart(answering: dict[str, object], status: int, body: bytes) -> None:
    server._require_prefect(f"{answering['url']}/api/")
    answering |= {"status": status, "body": body}
    with pytest.raises(FairgateError, match="this server is not Prefect's API"):
        server._require_prefect(f"{answering['url']}/api")


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ntr", b"\r\n"])
def test_what_does_not_speak_http_is_no_prefect(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(FairgateError, match="this server is not Prefect's API"):
            server._require_prefect(f"http://127.0.0.1:{listening.getsockname()[1]}/api")


@pytest.mark.parametrize("user", ["ann:s3cret", "s3cret", ":s3cret"])
def test_a_password_in_the_address_is_told_where_it_belongs(user: str) -> None:
    with pytest.raises(FairgateError, match=r"PREFECT_API_URL: Prefect takes no user[\s\S]*PREFECT_API_AUTH_STRING") as error:
        server._require_prefect(f"http://{user}@127.0.0.1:9/api")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("home", ["a_file", "a_file/below", "/proc/closed"])
def test_a_home_that_cannot_be_written_to_is_said(tmp_path: Path, home: str) -> None:
    (tmp_path / "a_file").touch()
    with pytest.raises(FairgateError, match=r"Prefect cannot keep its files here[\s\S]*name another one in PREFECT_HOME"):
        server._require_home(tmp_path / home)


def test_a_broken_database_in_the_home_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

    path = tmp_path / "prefect.db"
    path.write_bytes(b"no database " * 100)
    broken = {PREFECT_API_URL: None, PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{path}"}
    said = pytest.raises(FairgateError, match=r"prefect\.db: not a SQLite database[\s\S]*move it away")
    with temporary_settings(broken), said, prefect_server(tmp_path, services=False):
        pytest.fail("started")


@pytest.mark.parametrize("cron", ["every monday", "", "0 3 * *", "99 3 * * 1", "H 3 * * *", "0 0 30 2 *"])
def test_a_schedule_that_is_none_or_never_comes_is_refused(cron: str) -> None:
    require_schedule("0 3 * * 1")
    with pytest.raises(FairgateError, match=r"--cron: no cron expression[\s\S]*five fields"):
        require_schedule(cron)


def test_an_empty_schedule_does_not_run_a_release(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fairgate(["release", "--cron", ""]) == 2
    assert "no cron expression: ''" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "arguments", "said"),
    [
        ({"PREFECT_API_URL": f"{DEAD}/api"}, [], "no Prefect server answers"),
        ({"PREFECT_HOME": "params.yaml"}, ["--serve"], "Prefect cannot keep its files here"),
        ({"PREFECT_LOGGING_LEVEL": "banana"}, [], "Prefect cannot read its settings (ValidationError: level:"),
        ({}, ["--cron", "every monday"], 'Invalid cron string: "every monday"'),
    ],
)
def test_a_release_says_so_at_once_and_without_a_traceback(tmp_path: Path, extra: dict[str, str], arguments: list[str], said: str) -> None:
    started = time.monotonic()
    release = command(make_dvc(tmp_path), *arguments, **extra)
    output, _ = release.communicate(timeout=60)
    assert release.returncode == 2 and said in output and "Traceback" not in output, output
    assert time.monotonic() - started < 20  # 5 s on an idle machine; unchecked, Prefect takes two minutes


@pytest.mark.slow
def test_a_server_that_does_not_start_is_said_with_its_reason(tmp_path: Path) -> None:
    database = "postgresql+asyncpg://fair:s3cr-et@127.0.0.1:9/prefect"
    release = command(make_dvc(tmp_path), PREFECT_SERVER_DATABASE_CONNECTION_URL=database, PREFECT_HOME=str(tmp_path / "home"))
    output, _ = release.communicate(timeout=100)
    assert release.returncode == 2 and "the Prefect server did not start (" in output and "PREFECT_SERVER_" in output, output
    assert "Traceback" not in output and "s3cr" not in output


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy for everything, at which nothing listens."""
    for name in list(os.environ):
        if name.lower() in ("no_proxy", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "internal.example")
    monkeypatch.setenv("HTTP_PROXY", DEAD)


@pytest.mark.usefixtures("proxied")
@pytest.mark.parametrize("other", ["", "socks5://127.0.0.1:9", "banana://127.0.0.1:9", "http://fair:s3cr/et@127.0.0.1:9"])
def test_a_local_server_is_asked_without_a_proxy(answering: dict[str, object], monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    import httpx

    if other:
        monkeypatch.setenv("ALL_PROXY", other)
        monkeypatch.setenv("FAIRGATE_SET_ASIDE_ALL_PROXY", "")  # goes after the test
    with pytest.raises((httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError)):
        httpx.get(str(answering["url"]))
    before = dict(os.environ)
    spare_local_servers()
    assert httpx.get(str(answering["url"])).json() is True
    server._require_prefect(f"{answering['url']}/api")
    # The stages reach the world as before.
    theirs = users_environment()
    assert {name: theirs[name] for name in before if name.lower() in ("http_proxy", "all_proxy")} == {
        name: value for name, value in before.items() if name.lower() in ("http_proxy", "all_proxy")
    }
    assert theirs["NO_PROXY"].split(",")[0] == "internal.example"
