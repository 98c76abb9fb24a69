"""How many of the inputs in mended_inputs.yaml are mended: those whose tests all pass.

python -m benchmarks.mended_inputs
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.check_model import RESULTS
from benchmarks.records import Records
from fairgate.support.errors import FairgateError
from fairgate.support.params import read_params

FAULTS = Path(__file__).with_suffix(".yaml")


def main() -> None:
    """Run the tests and write `faults_mended`."""
    faults: dict[str, list[str]] = read_params(FAULTS)
    tests = sorted({test for named in faults.values() for test in named})
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *tests], check=False)
        if done.returncode not in (0, 1):
            raise FairgateError("pytest did not run these tests", where=str(FAULTS), remedy="correct the names in this file")
        passed = passed_tests(report)
    mended = [fault for fault, named in faults.items() if all(passed.get(test.split("[")[0], False) for test in named)]
    details = {"seconds": round(time.perf_counter() - started), "tests": len(tests), "open": sorted(set(faults) - set(mended))}
    Records(RESULTS, "mended_inputs").add("faults_mended", [len(mended)], "faults", target=len(faults), **details)


def passed_tests(report: Path) -> dict[str, bool]:
    """Whether every case of a test, and of a test file, passed; a test that was skipped did not."""
    passed: dict[str, bool] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (pytest wrote it)
        file = case.attrib["classname"].replace(".", "/") + ".py"
        for name in (file, f"{file}::{case.attrib['name'].split('[')[0]}"):
            passed[name] = passed.get(name, True) and len(case) == 0
    return passed


if __name__ == "__main__":
    main()
