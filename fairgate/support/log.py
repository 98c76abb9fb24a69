"""The one logger of the project.

A command line shows its messages on stderr. A program that uses fairgate as a library configures
it as any other: `logging.getLogger("fairgate")`.
"""

from __future__ import annotations

import logging
import sys

log = logging.getLogger("fairgate")


def log_to_stderr() -> None:
    """Show our progress and the warnings of libraries.

    Two libraries remark on optional parts that are not installed; those remarks are not shown.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    log.setLevel(logging.INFO)
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
