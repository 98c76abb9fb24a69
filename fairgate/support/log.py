"""The one logger of the project. A command line shows its messages on stderr; a library user
configures it as usual: `logging.getLogger("fairgate")`."""

from __future__ import annotations

import logging

log = logging.getLogger("fairgate")
