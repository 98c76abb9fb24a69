from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stages.quantize.run.fingerprint import CODE
from tests.project import REPOSITORY

IMPORTED = """
import sys
from importlib import import_module
from pkgutil import walk_packages
import stages.quantize
for module in walk_packages(stages.quantize.__path__, "stages.quantize."):
    import_module(module.name)
print(*sorted(m.__file__ for name, m in sys.modules.items() if name.split(".")[0] in ("fairgate", "stages") and m.__file__))
"""


def test_the_code_that_resume_depends_on_is_what_the_stage_imports() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    imported = {Path(path).relative_to(REPOSITORY).as_posix() for path in done.stdout.split()} - {"stages/__init__.py"}
    listed = {
        path.relative_to(REPOSITORY).as_posix()
        for part in CODE
        for path in ([REPOSITORY / part] if part.endswith(".py") else (REPOSITORY / part).rglob("*.py"))
    }
    assert listed == imported
