"""Reading what others wrote: damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.support.errors import BadRecord
from fairgate.support.files import atomic_folder, read_jsonl


def test_lines_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n\xff\xfe\n')
    with pytest.raises(BadRecord, match=r"x.jsonl:2: not valid JSON"):
        read_jsonl(tmp_path / "x.jsonl")


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".out.a1b2c3d4").mkdir()
    (tmp_path / ".out.a1b2c3d4" / "half").touch()
    (tmp_path / ".other.a1b2c3d4").mkdir()
    with atomic_folder(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.a1b2c3d4", "out"]
