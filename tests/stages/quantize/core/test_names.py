from __future__ import annotations

import subprocess
import sys


def test_names_are_read_without_torch() -> None:
    code = "import sys, stages.quantize.core.names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
