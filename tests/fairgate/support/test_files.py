"""Reading what others wrote: damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.support.errors import BadRecord
from fairgate.support.files import atomic_folder, read_json, read_jsonl, read_text


def test_lines_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n\xff\xfe\n')
    with pytest.raises(BadRecord, match=r"x.jsonl:2: not UTF-8 \(byte 0xff\)\nRemedy: save the file as UTF-8, or fetch it again"):
        read_jsonl(tmp_path / "x.jsonl")
    (tmp_path / "x.txt").write_bytes("one\r\ntwo\nth\u00e9".encode("cp1252"))
    with pytest.raises(BadRecord, match=r"x.txt:3: not UTF-8 \(byte 0xe9\)\nRemedy: run `dvc repro fetch`"):
        read_text(tmp_path / "x.txt", written_by="fetch")


@pytest.mark.parametrize("line", ['{"a": 1', "", "[" * 100_000, '{"a": "\\ud83d"}'], ids=["cut", "empty", "deep", "half a surrogate pair"])
def test_a_line_that_is_no_json_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.jsonl").write_text(f'{{"a": 1}}\n{line}\n{{"a": 2}}\n')
    with pytest.raises(BadRecord, match=r"x.jsonl:2: not valid JSON"):
        read_jsonl(tmp_path / "x.jsonl")
    (tmp_path / "x.json").write_text(line)
    with pytest.raises(BadRecord, match=r"x.json: not valid JSON"):
        read_json(tmp_path / "x.json")


def test_what_is_text_is_read(tmp_path: Path) -> None:
    value = "a\u2028b \U0001f600 \u00e9"
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + f'"{value}"\r\n"\\ud83d\\ude00"'.encode())
    assert read_jsonl(tmp_path / "x.jsonl") == [value, "\U0001f600"]
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree")
    assert read_text(tmp_path / "x.txt") == "one\ntwo\nthree"
    (tmp_path / "empty.jsonl").touch()
    assert read_jsonl(tmp_path / "empty.jsonl") == []


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".out.a1b2c3d4").mkdir()
    (tmp_path / ".out.a1b2c3d4" / "half").touch()
    (tmp_path / ".other.a1b2c3d4").mkdir()
    with atomic_folder(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.a1b2c3d4", "out"]
