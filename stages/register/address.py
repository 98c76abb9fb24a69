"""Whether an address of MLflow can be used, asked without showing any part of a password."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from fairgate.support.addresses import is_http_address
from fairgate.support.errors import FairgateError
from fairgate.support.sqlite import require_sqlite

_SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql")
_OTHERS = ("file", "databricks", "databricks-uc", "uc")
_VARIABLE = "MLFLOW_TRACKING_URI"
_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")


def require_address(uri: str) -> None:
    """Require that `uri` can be read as an address of MLflow; a SQLite file must be usable, too.

    Raises:
        FairgateError: the message holds no part of `uri` but its scheme, because a password that is
            not encoded can end up in any other part.
    """
    scheme = uri.partition(":")[0].partition("+")[0]
    if uri != uri.strip() or not uri.isprintable():
        raise _refused("blanks or line ends around the address", "remove them")
    if scheme == "sqlite":
        if not (path := _SQLITE.match(uri)):
            raise _refused("no file in the SQLite address", "write sqlite:/// and the path, e.g. sqlite:////home/ann/mlflow.db")
        if path[1] == ":memory:" or path[1].startswith("file:"):
            raise _refused(
                "a registry in memory, or at an address inside the address, is gone when the stage ends",
                "write sqlite:/// and the path of a file",
            )
        require_sqlite(Path(path[1]), remedy="restore it, or move it away: the next release makes a new one, without the versions")
    elif scheme in _SERVERS and not is_http_address(uri):
        raise _unreadable(scheme)
    elif scheme in DATABASES:
        _require_parts(uri, scheme)
    elif ":" in uri and scheme not in (*_SERVERS, *_OTHERS):
        known = ", ".join((*_SERVERS, "sqlite", *DATABASES))
        raise _refused("no address that MLflow knows", f"begin it with one of {known} and ://, or unset it to use a file in the project")


def _require_parts(uri: str, scheme: str) -> None:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        raise _unreadable(scheme) from None
    # An @ behind the host ends a password that holds a delimiter.
    if "@" in parts.path + parts.query + parts.fragment or "//" not in uri:
        raise _unreadable(scheme)


def _unreadable(scheme: str) -> FairgateError:
    return _refused(
        f"the {scheme} address cannot be taken apart into user, password, host and port",
        "write the marks of user and password percent-encoded: / as %2F, @ as %40, : as %3A, # as %23, ? as %3F, % as %25",
    )


def _refused(what: str, remedy: str) -> FairgateError:
    return FairgateError(what, where=_VARIABLE, remedy=remedy)
