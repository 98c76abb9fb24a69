"""Texts come out of plain and compressed files alike."""

from __future__ import annotations

import bz2
import io
import tarfile
from pathlib import Path

from fairgate.support.archives import read_texts


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
