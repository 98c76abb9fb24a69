"""What a stage's command line does with errors."""

from __future__ import annotations

import argparse
import errno
import logging
from pathlib import Path

import pytest
from safetensors import SafetensorError
from sqlalchemy.exc import OperationalError

from fairgate.support.cli import run
from fairgate.support.errors import FairgateError


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
    assert "open an issue" in printed
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


def test_what_a_library_raises_at_no_border_is_an_error_to_read(capsys: pytest.CaptureFixture[str]) -> None:
    def main(arguments: argparse.Namespace) -> None:
        raise OperationalError("SELECT 1", {}, Exception("cannot reach postgresql://fair:s3cr/et@host"))

    assert run("x", main, argparse.ArgumentParser(), []) == 2
    printed = capsys.readouterr().err
    assert "a database failed (OperationalError: " in printed and "Remedy: " in printed and "Traceback" not in printed
    assert "s3cr" not in printed and "et@" not in printed


def test_a_panic_of_a_rust_library_is_a_bug_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class PanicException(BaseException):
        pass

    def main(arguments: argparse.Namespace) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.chdir(tmp_path)
    assert run("x", main, argparse.ArgumentParser(), []) == 4
    assert "this is a bug in fairgate (PanicException: index" in (printed := capsys.readouterr().err) and "Traceback" not in printed


@pytest.mark.parametrize("kind", [FairgateError, ValueError])
def test_no_secret_reaches_the_terminal_a_log_or_a_traceback_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[Exception]
) -> None:
    uri = "postgresql://fair:s3cr/et+w0rd@host/mlflow"
    handler = logging.FileHandler(tmp_path / "library.log")  # a library with a handler of its own
    library = logging.getLogger("a_library")

    def main(arguments: argparse.Namespace) -> None:
        library.addHandler(handler)
        library.error("asking %s, port %r", uri, "s3cr")
        try:
            raise kind(f"no port 's3cr' in {uri}")
        except kind:
            library.exception("failed")
            raise

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    factory = logging.getLogRecordFactory()
    try:
        assert run("x", main, argparse.ArgumentParser(), ["--verbose"]) == (2 if kind is FairgateError else 4)
    finally:
        library.removeHandler(handler)
        logging.setLogRecordFactory(factory)
    written = [path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()]
    said = "".join([*capsys.readouterr(), *written])
    assert "no port '***' in postgresql://***@host/mlflow" in said and "asking postgresql://***@host/mlflow, port '***'" in said
    assert not [part for part in ("s3cr", "et+w0rd", "w0rd@") if part in said.replace(__file__, "").replace('"s3cr"', "")], said
