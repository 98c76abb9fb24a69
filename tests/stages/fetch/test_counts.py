from __future__ import annotations

import bz2
import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairgate.support.errors import BadRecord
from stages.fetch.counts import count_records
from stages.fetch.manifest import Counter


@pytest.mark.parametrize(
    ("text", "counter", "expected"),
    [
        ('{"a": 1}\n\n{"a": 2}', Counter(format="jsonl"), 2),
        ('{"data": {"x": [1, 2], "y": [3]}}', Counter(format="json", at=("data.x", "data.y")), 3),
        ('[{"a": 1}, {"a": 2}]', Counter(format="json", at=(".",)), 2),
        ('{"a": {"x": ["one", ""], "y": []}, "b": {"z": ["two"]}, "n": 3}', Counter(format="strings"), 3),
        ('a,b\n1,"two\nlines"\n3,4\n', Counter(format="csv"), 2),
        ('a\tb\n1\t"open\n3\t4\n', Counter(format="tsv"), 2),
        ("one\n \ntwo\n", Counter(format="lines"), 2),
        ("", Counter(format="csv"), 0),
    ],
)
def test_count(tmp_path: Path, text: str, counter: Counter, expected: int) -> None:
    (tmp_path / "f").write_text(text)
    assert count_records(tmp_path / "f", counter) == expected


@pytest.mark.parametrize("data", [b"\xff\xfe", b"{", b'{"data": {"x": 3}}', b"[]"])
def test_unreadable_json_names_the_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "f.json").write_bytes(data)
    with pytest.raises(BadRecord, match=r"f\.json"):
        count_records(tmp_path / "f.json", Counter(format="json", at=("data.x",)))


@pytest.mark.parametrize(
    ("text", "counter"),
    [
        ('a\n"' + "x" * 200_000, Counter(format="csv")),
        ("[" * 100_000, Counter(format="json", at=(".",))),
        ("[" * 100_000, Counter(format="strings")),
    ],
)
def test_a_field_or_a_list_that_does_not_end_names_the_file(tmp_path: Path, text: str, counter: Counter) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(BadRecord, match=rf"f: not a {counter.format} file"):
        count_records(tmp_path / "f", counter)


def test_packed_files_are_counted_by_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "f.txt.bz2").write_bytes(bz2.compress(b"one\n\ntwo\n"))
    assert count_records(tmp_path / "f.txt.bz2", Counter(format="lines")) == 2
    with tarfile.open(tmp_path / "f.tar.gz", "w:gz") as archive:
        for name, text in {"dev/a.csv": b'1,"two\nlines"\n', "test/a.csv": b"3,4\n5,6\n", "README.txt": b"no\nrecord\n"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    assert count_records(tmp_path / "f.tar.gz", Counter(format="rows")) == 3


def test_rows_of_parquet_are_counted_beside_another_form(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one", "two\nlines"]}), tmp_path / "f.parquet")
    assert count_records(tmp_path / "f.parquet", Counter(format="lines")) == 2
    (tmp_path / "g.parquet").write_bytes(b"no parquet")
    with pytest.raises(BadRecord, match=r"g\.parquet"):
        count_records(tmp_path / "g.parquet", Counter(format="lines"))
