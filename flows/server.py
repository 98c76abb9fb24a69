"""A Prefect server for schedules: the one that Prefect embeds in a run has no scheduler."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairgate.support.errors import FairgateError

START_S = 120.0
STOP_S = 20.0


@contextmanager
def scheduling_server(root: Path) -> Iterator[None]:
    """Run `prefect server start` on a free local port and point PREFECT_API_URL at it.

    Nothing is done if PREFECT_API_URL is set already. The server has its own process group, so that
    a terminal's Ctrl-C does not end it before the runs have recorded how they ended.
    """
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0)
    try:
        _wait(server, url)
        os.environ["PREFECT_API_URL"] = url
        yield
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait(server: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):  # noqa: S310 (the address is ours)
                return
        except OSError:
            time.sleep(0.5)
    raise FairgateError("the Prefect server did not start", where=url, remedy="look at its output above, or set PREFECT_API_URL")
