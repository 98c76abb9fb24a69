"""Every fault that is counted as mended names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.mended_inputs import FAULTS, passed_tests
from fairgate.support.params import read_params
from tests.project import REPOSITORY


def test_every_fault_names_tests_that_exist() -> None:
    for fault, named in read_params(FAULTS).items():
        for test in named:
            path, _, function = re.sub(r"\[.*", "", test).partition("::")
            text = (REPOSITORY / path).read_text(encoding="utf-8")
            assert not function or f"def {function}(" in text, fault


def test_a_test_that_was_skipped_or_failed_in_one_case_did_not_pass(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    cases = [
        ("tests.a", "test_x[1]", ""),
        ("tests.a", "test_x[2]", "<failure/>"),
        ("tests.b", "test_y", "<skipped/>"),
        ("tests.c", "test_z", ""),
    ]
    body = "".join(f'<testcase classname="{file}" name="{name}">{inside}</testcase>' for file, name, inside in cases)
    report.write_text(f"<testsuites><testsuite>{body}</testsuite></testsuites>")
    assert {test for test, passed in passed_tests(report).items() if passed} == {"tests/c.py", "tests/c.py::test_z"}
