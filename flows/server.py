"""The Prefect server that a release or a schedule talks to: one that runs, or one of our own."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from fairgate.support.addresses import is_http_address
from fairgate.support.errors import FairgateError
from fairgate.support.library_errors import translated
from fairgate.support.sqlite import require_sqlite

LOG = Path(".fairgate/prefect-server.log")
ANSWER_S = 5.0
# A fresh home needs up to half a minute for its migrations on two cores.
START_S = 120.0
STOP_S = 20.0
_UNSET = "or unset PREFECT_API_URL: then a server is started here"
_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception|Warning|error)\b.*$", re.MULTILINE)


@contextmanager
def prefect_server(root: Path, *, services: bool) -> Iterator[None]:
    """Require the server that PREFECT_API_URL names; without one, run a server of our own.

    Our own server has a process group of its own, so that a terminal's Ctrl-C does not end it
    before the runs have recorded how they ended. Its output goes to `.fairgate`.

    Args:
        root: the project.
        services: also start Prefect's scheduler.

    Raises:
        FairgateError: the settings of Prefect cannot be read, no Prefect server answers at
            PREFECT_API_URL, or our own server cannot keep its files or does not start.
    """
    with translated(
        "Prefect cannot read its settings",
        where="the environment variables PREFECT_*, or profiles.toml in PREFECT_HOME",
        remedy="correct the setting, or unset it",
    ):
        from prefect.context import refresh_global_settings_context
        from prefect.logging.handlers import APILogHandler
        from prefect.settings import get_current_settings

        settings = get_current_settings()
    if settings.api.url:
        _require_prefect(settings.api.url)
        yield
        return
    _require_home(settings.home)
    database = settings.server.database.connection_url
    if database and (path := re.match(r"sqlite(?:\+\w+)?:///([^?:]+)", database.get_secret_value())):
        require_sqlite(Path(path[1]), remedy="move it away, and Prefect makes a new one, without the history of runs")
    with _own_server(root, services) as url:
        os.environ["PREFECT_API_URL"] = url
        refresh_global_settings_context()
        try:
            yield
        finally:
            APILogHandler().flush()  # while the server still hears it
            del os.environ["PREFECT_API_URL"]
            refresh_global_settings_context()


def require_schedule(cron: str) -> None:
    """Raise FairgateError unless `cron` is a cron expression that some day matches."""
    import asyncio

    with translated(f"no cron expression: {cron!r}", where="--cron", remedy="give five fields, e.g. '0 3 * * 1' for Mondays at three"):
        from prefect.server.schemas.schedules import CronSchedule

        asyncio.run(CronSchedule(cron=cron).get_dates(1))


def _require_prefect(url: str) -> None:
    """Raise FairgateError unless a Prefect server answers at `url`, within seconds."""
    if not is_http_address(url):
        raise FairgateError(
            f"no address of a server: {url!r}", where="PREFECT_API_URL", remedy=f"write http://127.0.0.1:4200/api, {_UNSET}"
        )
    if "@" in urlsplit(url).netloc:
        remedy = "take it out of the address, and set PREFECT_API_AUTH_STRING=user:password"
        raise FairgateError("Prefect takes no user and no password in an address", where="PREFECT_API_URL", remedy=remedy)
    if str(urlsplit(url).hostname).endswith(".prefect.cloud"):
        return
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=ANSWER_S) as answer:  # noqa: S310 (the scheme is checked)
            healthy = json.loads(answer.read(1000)) is True
    except (ValueError, http.client.HTTPException):
        healthy = False
    except OSError as error:
        if not isinstance(error, urllib.error.HTTPError) or error.code >= 500:
            why = getattr(error, "reason", "") or error
            raise FairgateError(
                f"no Prefect server answers ({why})", where=url, remedy=f"start it, correct PREFECT_API_URL, {_UNSET}"
            ) from None
        healthy = False
    if not healthy:
        raise FairgateError("this server is not Prefect's API", where=url, remedy=f"correct PREFECT_API_URL (it ends in /api), {_UNSET}")


def _require_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home).close()
    except OSError as error:
        raise FairgateError(
            f"Prefect cannot keep its files here ({error.strerror})",
            where=str(home),
            remedy="make it a folder that you can write to, or name another one in PREFECT_HOME",
        ) from None


@contextmanager
def _own_server(root: Path, services: bool) -> Iterator[str]:
    """A server on a free local port; yields the URL of its API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    log = root / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            command if services else [*command, "--no-services"],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        _wait(server, url, log)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):  # noqa: S310 (the address is ours)
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
    said = _EXCEPTION.findall(log.read_text(encoding="utf-8", errors="replace"))
    why = said[-1] if said else "it did not answer in time" if server.poll() is None else f"exit code {server.returncode}"
    raise FairgateError(
        f"the Prefect server did not start ({why})",
        where=str(log),
        remedy="check PREFECT_HOME and the variables PREFECT_SERVER_*, or set PREFECT_API_URL to a server that runs",
    )
