"""A small DVC project shaped like the real one: two stages of work, a verdict, registration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fairgate.contracts.records import Verdict
from tests.project import CANDIDATE, REPOSITORY, make_project

DVC = """stages:
  first:
    cmd: python first.py
    deps: [first.py]
    params: [model]
    outs: [data/first.txt]
  second:
    matrix:
      recipe: [a, b]
    cmd: python second.py ${item.recipe}
    deps: [second.py, data/first.txt]
    outs: ["data/second-${item.recipe}.txt"]
  register:
    cmd: python -m stages.register
    deps:
      - data/second-a.txt
      - data/second-b.txt
      - data/reports/fair_gptq/verdict.json
    params: [register]
    outs:
      - data/reports/fair_gptq/registered.json:
          cache: false
"""
LAST = """  last:
    cmd: python -c "open('data/last.txt', 'w')"
    deps: [data/second-a.txt, data/second-b.txt]
    outs: [data/last.txt]
"""
FIRST = "from pathlib import Path\nPath('data/first.txt').write_text('1')\n"
SECOND = "import sys\nfrom pathlib import Path\nPath(f'data/second-{sys.argv[1]}.txt').write_text(Path('data/first.txt').read_text())\n"
# A stage with a child of its own; both run until something ends them.
SLOW = """import subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'])
Path('pids.txt').write_text(f'{child.pid}')
time.sleep(120)
"""


def make_dvc(root: Path) -> Path:
    """The pipeline without anything to register: its last stage only waits for the others."""
    (root / "data").mkdir()
    (root / "params.yaml").write_text("model: tiny\n")
    (root / "dvc.yaml").write_text(DVC.partition("  register:")[0] + LAST)
    _scripts(root)
    return root


def make_pipeline(root: Path, verdict: Verdict = Verdict.approve, checkpoint: Path | None = None) -> Path:
    """A project with a DVC repository and, from `tests.project`, everything that register reads."""
    root.mkdir(parents=True, exist_ok=True)
    make_project(root, verdict, checkpoint)
    (root / "dvc.lock").unlink()
    (root / "dvc.yaml").write_text(DVC)
    _scripts(root)
    return root


def _scripts(root: Path) -> None:
    (root / "first.py").write_text(FIRST)
    (root / "second.py").write_text(SECOND)
    # What `dvc init --no-scm` writes.
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    no_scm = True\n    analytics = false\n")


def dvc(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command in a pipeline folder: this checkout and this Python first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY), **extra}


def receipt_path(root: Path) -> Path:
    return root / f"data/reports/{CANDIDATE}/registration.json"
