from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairgate.support.digests import sha256_file, sha256_folder
from fairgate.support.errors import UnknownName
from stages.fetch.errors import CountMismatch, HashMismatch, Unavailable
from stages.fetch.manifest import Manifest
from stages.fetch.origins import Origins
from stages.fetch.raw import fetch_raw
from tests.hub import Hub, sha256
from tests.stages.fetch.conftest import make_wheel

TEXT = b"one\ntwo\n"


def wheel_origin(**change: Any) -> dict[str, Any]:
    file = {"path": "data.txt", "records": 2, "sha256": sha256(TEXT)}
    return {"kind": "wheel", "wheel": "tiny-data", "folder": "tiny_data", "crlf": True, "files": {"a.txt": file | change}}


def path_origin(folder: Path) -> dict[str, Any]:
    return {"kind": "path", "folder": str(folder), "files": {"a.txt": {"records": 2, "sha256": sha256(TEXT)}}}


def entry(*origins: dict[str, Any], **change: Any) -> dict[str, Any]:
    base = {"default": True, "licence": "MIT", "attribution": "Some Body 2020", "source": "a/b", "count": {"format": "lines"}}
    return base | {"origins": list(origins)} | change


class World:
    """A manifest over one tiny cached wheel."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "raw"
        self.cache = folder / "cache"
        wheel = make_wheel(self.cache / "wheels", {"tiny_data/data.txt": TEXT.replace(b"\n", b"\r\n")})
        self.wheels = {"tiny-data": {"version": "1.0", "bytes": wheel.stat().st_size, "sha256": sha256_file(wheel)}}

    def fetch(self, extra: tuple[str, ...] = (), **sets: dict[str, Any]) -> dict[str, Any]:
        manifest = Manifest.model_validate({"schema": 1, "wheels": self.wheels, "models": {}, "sets": sets})
        fetch_raw(manifest, Origins(manifest.wheels, self.cache), self.out, extra=extra)
        return json.loads((self.out / "SOURCES.json").read_text())["sets"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_wheel_set_with_crlf_turned_back(world: World) -> None:
    sources = world.fetch(s=entry(wheel_origin()))
    assert (world.out / "s" / "a.txt").read_bytes() == TEXT
    assert sources["s"]["origin"] == {"kind": "wheel", "package": "tiny-data", **_pins(world)}
    assert sources["s"]["files"] == {"a.txt": {"sha256": sha256(TEXT), "bytes": 8, "records": 2}}
    assert sources["s"]["partial"] is False
    licences = (world.out / "LICENSES.md").read_text()
    assert "Some Body 2020" in licences
    assert "MIT" in licences


def _pins(world: World) -> dict[str, Any]:
    return {key: world.wheels["tiny-data"][key] for key in ("version", "sha256")}


def test_twice_gives_the_same_bytes(world: World) -> None:
    world.fetch(s=entry(wheel_origin()))
    first = sha256_folder(world.out)
    world.fetch(s=entry(wheel_origin()))
    assert sha256_folder(world.out) == first


def test_partial_set_is_named_so(world: World) -> None:
    sources = world.fetch(s=entry(wheel_origin(), complete=3))
    assert sources["s"]["partial"] is True
    assert "a partial set: 2 of 3" in (world.out / "LICENSES.md").read_text()


def test_crlf_left_in_is_another_content(world: World) -> None:
    with pytest.raises(HashMismatch, match=r"s/a\.txt"):
        world.fetch(s=entry(wheel_origin() | {"crlf": False}))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sha256": "c" * 64}, HashMismatch, "pinned is cccc"),
        ({"records": 3}, CountMismatch, "2 records, 3 are expected"),
        ({"path": "none.txt"}, Unavailable, "no member tiny_data/none.txt"),
    ],
)
def test_failure_leaves_the_old_folder_whole(world: World, change: dict[str, Any], error: type[Exception], message: str) -> None:
    world.fetch(s=entry(wheel_origin()))
    before = sha256_folder(world.out)
    with pytest.raises(error, match=message):
        world.fetch(s=entry(wheel_origin()), t=entry(wheel_origin(**change)))
    assert sha256_folder(world.out) == before
    assert {path.name for path in world.out.parent.iterdir()} == {"raw", "cache"}


def test_next_origin_is_tried_only_when_one_is_unavailable(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_bytes(TEXT)
    mine = path_origin(tmp_path / "mine")
    assert world.fetch(s=entry(wheel_origin(path="none.txt"), mine))["s"]["origin"] == {"kind": "path"}
    with pytest.raises(HashMismatch):
        world.fetch(s=entry(wheel_origin(sha256="c" * 64), mine))
    world.wheels["tiny-data"]["sha256"] = "d" * 64
    with pytest.raises(HashMismatch, match="pinned is dddd"):
        world.fetch(s=entry(wheel_origin(), mine))


def test_path_origin_is_checked_too(world: World, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_bytes(b"ONE\ntwo\n")
    with pytest.raises(HashMismatch, match=r"\(path\)"):
        world.fetch(s=entry(path_origin(tmp_path / "mine")))


def test_optional_set_may_be_absent_unless_named(world: World, tmp_path: Path) -> None:
    absent = entry(path_origin(tmp_path / "none"), default=False, optional=True)
    assert set(world.fetch(s=entry(wheel_origin()), t=absent)) == {"s"}
    assert not (world.out / "t").exists()
    with pytest.raises(Unavailable, match=r"no origin of t is available(?s:.*)put it there"):
        world.fetch(("t",), s=entry(wheel_origin()), t=absent)


def test_other_sets_come_by_name_only(world: World) -> None:
    sets = {"s": entry(wheel_origin()), "other": entry(wheel_origin(), default=False)}
    assert set(world.fetch(**sets)) == {"s"}
    assert set(world.fetch(("other",), **sets)) == {"s", "other"}
    with pytest.raises(UnknownName, match="did you mean 'other'"):
        world.fetch(("othr",), **sets)


def test_hub_set(world: World, hub: Hub) -> None:
    hub.files["data/a.txt"] = TEXT
    origin: dict[str, Any] = {
        "kind": "hub",
        "repository": hub.name,
        "revision": hub.revision,
        "files": {"a.txt": {"path": "data/a.txt", "records": 2, "sha256": sha256(TEXT)}},
    }
    assert world.fetch(s=entry(origin))["s"]["origin"] == {"kind": "hub", "repository": hub.name, "revision": hub.revision}
    assert (world.out / "s" / "a.txt").read_bytes() == TEXT
    assert hub.requests[0].startswith("GET /api/datasets/")
    origin["files"]["a.txt"]["sha256"] = "c" * 64
    with pytest.raises(HashMismatch, match=r"\(hub\)"):
        world.fetch(s=entry(origin))
