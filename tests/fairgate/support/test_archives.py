"""Texts come out of plain and compressed files alike."""

from __future__ import annotations

import bz2
import io
import tarfile
from pathlib import Path

import pytest

from fairgate.support.archives import read_texts
from fairgate.support.errors import FairgateError


def test_texts_of_plain_and_compressed_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("é\r\n".encode())
    (tmp_path / "b.txt.bz2").write_bytes(bz2.compress(b"packed"))
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in ("folder/one.csv", "folder/two.csv"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"1,2"))
    texts = [text for name in ("a.txt", "b.txt.bz2", "c.tar.gz") for text in read_texts(tmp_path / name)]
    assert texts == [("a.txt", "é\r\n"), ("b.txt", "packed"), ("folder/one.csv", "1,2"), ("folder/two.csv", "1,2")]


def test_a_broken_archive_and_a_text_in_another_encoding_are_named(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        member = tarfile.TarInfo("folder/one.csv")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"1\n\xe9"))
    (tmp_path / "a.tar.gz").write_bytes(whole.getvalue())
    with pytest.raises(FairgateError, match=r"a.tar.gz: folder/one.csv:2: not UTF-8 \(byte 0xe9\)"):
        list(read_texts(tmp_path / "a.tar.gz"))
    for name, data in (
        ("b.tar.gz", whole.getvalue()[:40]),
        ("c.tar.gz", b"no archive"),
        ("d.csv.bz2", bz2.compress(b"1,2")[:20]),
        ("e.bz2", b"-"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FairgateError, match=rf"{name}: the archive cannot be read .*\nRemedy: fetch it again"):
            list(read_texts(tmp_path / name))
