from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.support.digests import sha256_file
from fairgate.support.errors import FairgateError
from stages.fetch import wheel
from stages.fetch.errors import HashMismatch, Unavailable
from stages.fetch.manifest import Wheel
from tests.stages.fetch.conftest import make_wheel


def pin(path: Path, sha256: str = "") -> Wheel:
    return Wheel(version="1.0", bytes=path.stat().st_size, sha256=sha256 or sha256_file(path))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel where pip finds it, and no other index."""
    path = make_wheel(tmp_path / "index", {"tiny_data/data.txt": b"one\n"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return path


def test_download_is_cached_and_not_repeated(index: Path, tmp_path: Path) -> None:
    pinned = pin(index)
    found = wheel.obtain("tiny-data", pinned, tmp_path / "cache")
    assert found == tmp_path / "cache" / index.name
    assert sha256_file(found) == pinned.sha256
    index.unlink()
    assert wheel.obtain("tiny-data", pinned, tmp_path / "cache") == found
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [index.name]


def test_download_with_wrong_hash_is_not_kept(index: Path, tmp_path: Path) -> None:
    with pytest.raises(HashMismatch, match="pinned is bbbb"):
        wheel.obtain("tiny-data", pin(index, "b" * 64), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_cached_wheel_is_checked_again(tmp_path: Path) -> None:
    cached = make_wheel(tmp_path / "cache", {})
    pinned = pin(cached)
    cached.write_bytes(b"damaged")
    with pytest.raises(HashMismatch, match="delete this file"):
        wheel.obtain("tiny-data", pinned, tmp_path / "cache")


def test_no_index_names_package_and_remedy(index: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"absent==1\.0(?s:.*)by hand(?s:.*)`path` origin"):
        wheel.obtain("absent", pin(index), tmp_path / "cache")


def test_pip_that_hangs_is_stopped(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "TIMEOUT_S", 0.01)
    with pytest.raises(Unavailable, match="no answer within"):
        wheel.obtain("tiny-data", pin(index), tmp_path / "cache")


def test_no_disk_space_is_said_before_the_download(index: Path, tmp_path: Path) -> None:
    huge = Wheel(version="1.0", bytes=2**60, sha256="a" * 64)
    with pytest.raises(FairgateError, match="no disk space for wheel tiny-data"):
        wheel.obtain("tiny-data", huge, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_extract_renames_and_names_a_missing_member(tmp_path: Path) -> None:
    path = make_wheel(tmp_path / "wheels", {"tiny_data/sub/data.txt": b"one\n"})
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Unavailable, match=r"no member tiny_data/none\.txt"):
        wheel.extract(path, {"a.txt": "tiny_data/sub/data.txt", "b.txt": "tiny_data/none.txt"}, out)
    assert list(out.iterdir()) == []
    wheel.extract(path, {"a.txt": "tiny_data/sub/data.txt"}, out)
    assert (out / "a.txt").read_bytes() == b"one\n"
