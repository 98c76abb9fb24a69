"""What a stage's command line does with errors."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from fairgate.support.cli import run


def test_a_full_or_closed_disk_is_an_error_to_read_and_any_other_failure_is_a_bug_with_its_traceback_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def fail(number: int, *options: str) -> int:
        def main(arguments: argparse.Namespace) -> None:
            raise OSError(number, "on purpose", "data/x")

        return run("x", main, argparse.ArgumentParser(), [*options])

    assert fail(errno.ENOSPC) == 2
    assert "no disk space" in (printed := capsys.readouterr().err) and "data/x" in printed and "Remedy" in printed
    for number in (errno.EACCES, errno.EROFS):
        assert fail(number) == 2
        assert "not permitted" in (printed := capsys.readouterr().err) and "data/x" in printed and "Remedy" in printed
    assert fail(errno.EIO) == 4
    path = tmp_path / ".fairgate/tracebacks/x.txt"
    assert "this is a bug in fairgate" in (printed := capsys.readouterr().err) and str(path) in printed and "Traceback" not in printed
    assert 'raise OSError(number, "on purpose", "data/x")' in path.read_text()
    assert fail(errno.EIO, "--verbose") == 4
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert not Path("data/timing").exists()


def test_a_disk_that_fills_while_weights_are_written_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def main(arguments: argparse.Namespace) -> None:
        # What the safetensors writer says on a full disk, word for word.
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    assert run("x", main, argparse.ArgumentParser(), []) == 2
    assert "no disk space" in capsys.readouterr().err
