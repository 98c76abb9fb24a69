"""`python -m stages.register`: record the gate's verdict in MLflow.

An approved candidate becomes a model version.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fairgate.support import cli
from fairgate.support.user import require_user
from stages.register.environment import set_environment


def main(arguments: argparse.Namespace) -> None:
    # MLflow reads part of its environment when it is imported, and looks for the home folder.
    set_environment()
    require_user()
    from stages.register.stage import register

    register(Path.cwd(), Path(arguments.params))


if __name__ == "__main__":
    sys.exit(cli.run("register", main, argparse.ArgumentParser(prog="python -m stages.register", description=__doc__)))
