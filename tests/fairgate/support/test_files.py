"""Reading what others wrote: damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.support.errors import BadRecord, FairgateError
from fairgate.support.files import atomic_folder, read_jsonl
from fairgate.support.params import read_params


def test_lines_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n\xff\xfe\n')
    with pytest.raises(BadRecord, match=r"x.jsonl:2: not valid JSON"):
        read_jsonl(tmp_path / "x.jsonl")


@pytest.mark.parametrize("content", [b"a: [1", b"a: \xff"])
def test_a_broken_parameter_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(FairgateError, match=r"params.yaml: not valid YAML"):
        read_params(tmp_path / "params.yaml")


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".out.a1b2c3d4").mkdir()
    (tmp_path / ".out.a1b2c3d4" / "half").touch()
    (tmp_path / ".other.a1b2c3d4").mkdir()
    with atomic_folder(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.a1b2c3d4", "out"]
