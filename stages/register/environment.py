"""How MLflow is reached: its environment, the tracking URI, and whether a server answers."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from fairgate.support.errors import FairgateError
from fairgate.support.library_errors import translated
from fairgate.support.log import log
from fairgate.support.redaction import HIDDEN, redact
from stages.register.address import require_address

CONNECT_TIMEOUT_S = 5
# What an earlier run, a notebook or an MLflow project leaves. Each would change what is recorded.
_LEFTOVERS = (
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_RUN_CONTEXT",
    "MLFLOW_ACTIVE_MODEL_ID",
    "_MLFLOW_ACTIVE_MODEL_ID",
    "MLFLOW_REGISTRY_URI",
)
# SQLAlchemy ends a path at a question mark, MLflow puts the folder between apostrophes into the SQL
# that begins a database, and it decodes a path twice when it loads a model.
_NOT_IN_A_URI = re.compile(r"[?']|%[0-9A-Fa-f]{2}")
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
    """The one address of runs and versions: MLFLOW_TRACKING_URI, or a file at the project's root.

    Raises:
        FairgateError: no SQLite URI can name the project's folder, or MLFLOW_REGISTRY_URI names a
            second address.
    """
    folder = str(root.resolve())
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder}/mlflow.db"
    odd = [*_NOT_IN_A_URI.findall(folder), *(repr(mark) for mark in folder if not mark.isprintable())]
    if odd and uri.startswith("sqlite:"):
        raise FairgateError(
            f"MLflow cannot keep a registry in a folder with {odd[0]} in its path",
            where=folder,
            remedy="rename the folder, or set MLFLOW_TRACKING_URI to a server",
        )
    versions = os.environ.get("MLFLOW_REGISTRY_URI")
    if versions and versions != uri:
        raise FairgateError(
            "runs and versions are kept at one address, and this names a second one",
            where=f"MLFLOW_REGISTRY_URI={without_credentials(versions)}",
            remedy="unset MLFLOW_REGISTRY_URI; MLFLOW_TRACKING_URI decides for both",
        )
    return uri


@contextmanager
def mlflow_imported() -> Iterator[None]:
    """Import MLflow inside, which reads some of its variables then.

    Raises:
        FairgateError: MLflow cannot read one of them, for example a level of logging that is none.
    """
    with translated("MLflow cannot read a variable", where="the environment variables MLFLOW_*", remedy="correct it, or unset it"):
        yield


@contextmanager
def impatient() -> Iterator[None]:
    """Let MLflow wait for a server's answer as long as for its port, and try once."""
    hasty = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(CONNECT_TIMEOUT_S), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    before = {name: os.environ.get(name) for name in hasty}
    os.environ.update(hasty)
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def without_leftovers() -> Iterator[None]:
    """Set aside what an earlier run left in the environment; afterwards it is as it was."""
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", *_LEFTOVERS)}
    if left := [name for name in _LEFTOVERS if before[name]]:
        log.info("register: not used: %s", ", ".join(left))
    for name in _LEFTOVERS:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        _restore(before)


def _restore(variables: dict[str, str | None]) -> None:
    """Set variables of the environment to what they were; None means not set."""
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


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
