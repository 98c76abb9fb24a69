"""`python -m flows.smoke`: the same as `fairgate smoke`."""

from __future__ import annotations

import sys

from flows.smoke.command import run

if __name__ == "__main__":
    sys.exit(run(prog="python -m flows.smoke"))
