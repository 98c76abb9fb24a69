"""What libraries raise, translated into errors that a user can act on.

No library is imported: an exception is known by the dotted name of its class or of a base class.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fairgate.support.errors import FairgateError
from fairgate.support.redaction import redact

_LONGEST = 400


class Meaning(NamedTuple):
    """What an exception means to a user, and what to do about it."""

    what: str
    remedy: str


_HUB = Meaning("the hub does not answer as it should", "check the network, HF_ENDPOINT and HF_TOKEN, or give a local folder")
_HTTP = Meaning(
    "a server cannot be reached", "check the network, the addresses in the environment (HF_ENDPOINT, MLFLOW_TRACKING_URI) and the proxies"
)
_TRACKING = Meaning(
    "MLflow failed", "check the tracking server and its artifact store, or unset MLFLOW_TRACKING_URI to use a SQLite file in the project"
)
_S3 = Meaning("the S3 service failed", "check its endpoint, the bucket, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
_TEMPLATE = Meaning("a template cannot be rendered", "correct the model's chat template, or remove it")
_PACKAGE = Meaning("a Python package is missing", "install the package that the message names, or this project again")
_PREFECT = Meaning(
    "Prefect failed", "look at the server that PREFECT_API_URL names, or unset it; the embedded one keeps its files in PREFECT_HOME"
)
_DVC = Meaning("DVC failed", "see what it says of dvc.yaml, dvc.lock and .dvc")

# Wherever one of these comes from, an input or the machine is at fault, and not this program.
MEANINGS = {
    "safetensors._safetensors_rust.SafetensorError": Meaning("a safetensors file cannot be read", "fetch or copy the model again"),
    "jinja2.exceptions.TemplateError": _TEMPLATE,
    "huggingface_hub.errors.HfHubHTTPError": _HUB,
    "huggingface_hub.errors.OfflineModeIsEnabled": Meaning("the hub is switched off", "unset HF_HUB_OFFLINE, or give a local folder"),
    "huggingface_hub.errors.HFValidationError": Meaning(
        "no name of a repository on the hub", "write owner/name@commit, or give a local folder"
    ),
    "httpx.HTTPError": _HTTP,
    "httpx.InvalidURL": _HTTP,
    "httpx2.HTTPError": _HTTP,
    "httpx2.InvalidURL": _HTTP,
    "requests.exceptions.RequestException": _HTTP,
    "urllib3.exceptions.HTTPError": _HTTP,
    "mlflow.exceptions.MlflowException": _TRACKING,
    "sqlalchemy.exc.SQLAlchemyError": Meaning("a database failed", "check the database in MLFLOW_TRACKING_URI, or PREFECT_HOME"),
    "sqlite3.DatabaseError": Meaning(
        "a SQLite file cannot be used", "move the file away (mlflow.db, or .prefect/prefect.db); a new one is made"
    ),
    "botocore.exceptions.BotoCoreError": _S3,
    "botocore.exceptions.ClientError": _S3,
    "dvc.exceptions.DvcException": _DVC,
    "prefect.exceptions.PrefectException": _PREFECT,
    "builtins.ModuleNotFoundError": _PACKAGE,
    "builtins.MemoryError": Meaning("not enough memory", "close other programs, lower batch_tokens, or take a smaller model"),
}

# These mean something only where a library reads a user's file: elsewhere they are bugs.
_WHILE_READING = {
    "json.decoder.JSONDecodeError": Meaning("", "a file is not JSON (a Git LFS pointer, perhaps): download the whole files"),
    "builtins.UnicodeDecodeError": Meaning("", "a file is not UTF-8: download it again, or save it as UTF-8"),
    "builtins.ImportError": _PACKAGE,
}


@contextmanager
def translated(what: str, *, where: str = "", remedy: str = "") -> Iterator[None]:
    """Turn whatever a library raises inside into a FairgateError.

    Only calls of libraries belong inside: an error of this program's own would be hidden. Running
    out of a GPU's memory is passed on, because the callers take smaller batches then.

    Args:
        what: what the library was to do and could not, e.g. "the tokenizer cannot be loaded".
        where: the file, folder, address or variable that it was given.
        remedy: what to do. A full disk, a missing package or a file that is no JSON or no UTF-8
            tells a nearer remedy. Empty means the one for the class of the exception.

    Raises:
        FairgateError: `what`, with the library's own reason.
    """
    try:
        yield
    except FairgateError:
        raise
    except BaseException as error:
        if not is_failure(error) or type(error).__name__ == "OutOfMemoryError":
            raise
        nearer = _disk(error) or _look_up(error, _WHILE_READING)
        known = nearer or (None if remedy else _look_up(error, MEANINGS))
        raise FairgateError(f"{what} ({reason(error)})", where=where, remedy=known.remedy if known else remedy) from error


def meaning(error: BaseException) -> FairgateError | None:
    """The error to show for an exception that no border translated; None means it is a bug."""
    known = _disk(error) or _look_up(error, MEANINGS)
    return FairgateError(f"{known.what} ({reason(error)})", remedy=known.remedy) if known else None


def is_failure(error: BaseException) -> bool:
    """Whether something failed: not Ctrl-C, nor an exit. A panic of a Rust library counts."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def reason(error: BaseException) -> str:
    """Class and message of an exception in one line, shortened and without secrets."""
    text = " ".join(_words(error).split())
    line = redact(f"{type(error).__name__}: {text}" if text else type(error).__name__)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _words(error: BaseException) -> str:
    if type(error).__module__ == "pydantic_core._pydantic_core" and hasattr(error, "errors"):
        first = error.errors()[0]
        return ".".join(str(part) for part in first["loc"]) + f": {first['msg']}"
    return str(error)


def _look_up(error: BaseException, meanings: dict[str, Meaning]) -> Meaning | None:
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((meanings[name] for name in names if name in meanings), None)


def _disk(error: BaseException) -> Meaning | None:
    """The meaning of a full disk, or of one that is closed to us."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Meaning("not permitted", "make it readable and the data folder writable")
    # Libraries in Rust and C report a full disk in words, without an error number.
    if number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
        return Meaning("no disk space; nothing half-written was kept", "free some, run again")
    return None
