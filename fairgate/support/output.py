"""What a command prints may be cut off, by a reader who has seen enough or a full disk.

That is the end of the output and not of the command, whose exit code is its answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast


class _Output:
    """A stream that takes everything, and writes it as long as that succeeds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._end(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        # What still waits in the stream's buffer is written once more when Python exits.
        with suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
        if not isinstance(error, BrokenPipeError) and sys.stderr is not self:
            print(f"fairgate: the output could not be written to its end ({error.strerror})", file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def enduring_output() -> Iterator[None]:
    """Let no error of stdout or stderr reach the code inside."""
    if sys.stdout is None or sys.stderr is None:  # closed from the start: `print` writes nothing
        yield
        return
    out, err = _Output(sys.stdout), _Output(sys.stderr)
    with redirect_stderr(cast(TextIO, err)), redirect_stdout(cast(TextIO, out)):
        try:
            yield
        finally:
            out.flush()
