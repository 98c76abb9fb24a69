"""The one logger of the project.

A command line shows its messages on stderr. A program that uses fairgate as a library configures
it as any other: `logging.getLogger("fairgate")`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from fairgate.support.redaction import redact

log = logging.getLogger("fairgate")


def log_to_stderr() -> None:
    """Show our progress and the warnings of libraries.

    Two libraries remark on optional parts that are not installed; those remarks are not shown.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    log.setLevel(logging.INFO)
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def hide_secrets_in_logs() -> None:
    """Redact every record of this process, also where a library has a handler of its own."""
    logging.setLogRecordFactory(_redacted)


def _redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    message = record.getMessage()
    if (clean := redact(message)) != message:
        record.msg, record.args = clean, None
    if record.exc_info:
        # A formatter takes this text, if it is there, instead of formatting the exception.
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
    return record
