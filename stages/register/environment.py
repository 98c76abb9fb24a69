"""How MLflow is reached: its environment, the tracking URI, and whether a server answers."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from fairgate.support.errors import FairgateError
from fairgate.support.redaction import HIDDEN, redact
from stages.register.address import require_address

CONNECT_TIMEOUT_S = 5
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def set_environment() -> None:
    """Set the environment of MLflow as this project uses it; what the user set stays.

    Call this before importing mlflow.
    """
    defaults = {
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # MLflow's defaults retry a dead server for minutes.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        "GIT_PYTHON_REFRESH": "quiet",
        # gptqmodel sizes its pools when it is imported. Its default on two cores is one worker,
        # which cannot load a model.
        "GPTQMODEL_CPU_WORKERS": "2",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file at the project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"


def without_credentials(uri: str) -> str:
    """The URI without user, password and query (which may hold a token)."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return HIDDEN
    if not parts.netloc:
        return redact(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def require_reachable(uri: str) -> None:
    """Require that `uri` is an address, and that something listens there, within seconds.

    Raises:
        FairgateError: `uri` is no address of MLflow, or names a server and nothing listens there.
    """
    require_address(uri)
    parts = urlsplit(uri)
    if not parts.hostname:
        return
    port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
    if port is None:
        return
    try:
        socket.create_connection((parts.hostname, port), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        raise FairgateError(
            f"no tracking server answers ({error})",
            where=without_credentials(uri),
            remedy="start it, correct MLFLOW_TRACKING_URI, or unset it to use a SQLite file in the project",
        ) from None
