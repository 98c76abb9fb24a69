from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stages.quantize import core


def test_names_are_read_without_torch() -> None:
    code = "import sys, stages.quantize.core.names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_every_file_of_the_core_is_in_its_reading_order() -> None:
    files = {path.stem for path in Path(core.__path__[0]).glob("*.py")} - {"__init__"}
    assert {line.split()[0] for line in (core.__doc__ or "").splitlines() if line.startswith("    ")} == files
