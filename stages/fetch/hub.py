"""The hub origin: files of one commit of a repository.

Each file is checked against the hash that the hub states for that commit.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fairgate.support.addresses import is_http_address
from fairgate.support.digests import sha256_file
from fairgate.support.disk import require_space
from fairgate.support.library_errors import reason
from stages.fetch.errors import HashMismatch, Unavailable

Kind = Literal["model", "dataset"]
_HUB = "https://huggingface.co"
# What an HTTP header can carry, and no quotes that a shell was meant to take away. Empty is unset.
_TOKEN = re.compile(r"(?:(?!['\"])[!-~])*")


@dataclass(frozen=True)
class Stated:
    """What the hub says about a file.

    size: in bytes. sha256: of large files. blob: git blob id of small ones.
    """

    size: int
    sha256: str | None
    blob: str | None


@dataclass(frozen=True)
class Repository:
    """One commit of a repository on the hub."""

    name: str
    revision: str
    kind: Kind = "model"

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"


@dataclass(frozen=True)
class Listing:
    """The files of one commit, and the license that its model card names."""

    files: Mapping[str, Stated]
    licence: str | None


def listing(repository: Repository) -> Listing:
    """Ask the hub for the files of a commit.

    Raises:
        Unavailable: no network, no such repository or commit, no access.
    """
    # Imported here: huggingface_hub reads HF_HUB_OFFLINE when it is imported.
    from huggingface_hub import HfApi

    api = HfApi(endpoint=_endpoint())
    ask = api.model_info if repository.kind == "model" else api.dataset_info
    with _reachable(repository):
        info = ask(repository.name, revision=repository.revision, files_metadata=True)
    if info.sha != repository.revision:
        raise HashMismatch(f"the hub answers with commit {info.sha}", where=str(repository))
    files = {
        entry.rfilename: Stated(entry.size or 0, entry.lfs.sha256 if entry.lfs else None, entry.blob_id) for entry in info.siblings or []
    }
    card = info.card_data
    return Listing(files, card.get("license") if card else None)


def download(repository: Repository, stated: Mapping[str, Stated], members: Mapping[str, str], into: Path, cache: Path) -> None:
    """Copy files into the folder `into`, through a cache that the next run uses again.

    Args:
        repository: one commit of a repository.
        stated: what the hub states about its files.
        members: target name to path in the repository.
        into: the output folder.
        cache: the cache folder.

    Raises:
        Unavailable: a file is missing, or the connection failed even after the hub client's
            retries.
        HashMismatch: the content is not what the hub states; it is dropped from the cache.
    """
    from huggingface_hub import hf_hub_download

    missing = [member for member in members.values() if member not in stated]
    if missing:
        raise Unavailable(f"no file {missing[0]}", where=str(repository), remedy="correct the file list of this origin in the manifest")
    require_space(cache, 2 * sum(stated[member].size for member in members.values()), what=f"{repository} and its cached copy")
    for name, member in members.items():
        with _reachable(repository):
            cached = hf_hub_download(
                repository.name,
                member,
                revision=repository.revision,
                repo_type=repository.kind,
                cache_dir=cache,
                endpoint=_endpoint(),
            )
        try:
            _check(Path(cached), stated[member], where=f"{repository}/{member}")
        except HashMismatch:
            Path(cached).resolve().unlink()
            raise
        shutil.copyfile(cached, into / name)


def _endpoint() -> str:
    """The hub's address.

    Raises:
        Unavailable: HF_ENDPOINT is no address, or HF_TOKEN cannot be sent as a token.
    """
    address = os.environ.get("HF_ENDPOINT") or _HUB
    if not is_http_address(address):
        raise Unavailable("no address of a hub", where="HF_ENDPOINT", remedy="write https://host, or unset it")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if not _TOKEN.fullmatch(os.environ.get(name, "").strip()):
            remedy = "copy the token again (letters, digits and marks, without blanks and quotes), or unset it"
            raise Unavailable(f"{name} is no token", remedy=remedy)
    return address


def _check(path: Path, stated: Stated, *, where: str) -> None:
    if stated.sha256:
        actual, pinned = sha256_file(path), stated.sha256
    elif stated.blob:
        data = path.read_bytes()
        actual, pinned = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest(), stated.blob
    else:
        raise HashMismatch("the hub states no hash for this file", where=where, remedy="use a hub that does, or a local folder")
    if actual != pinned:
        raise HashMismatch(f"content hash is {actual}, the hub states {pinned}", where=where, remedy="run again; if it stays, report it")


@contextmanager
def _reachable(repository: Repository) -> Iterator[None]:
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise Unavailable("the hub is switched off", where=str(repository), remedy="unset HF_HUB_OFFLINE") from None
    except HfHubHTTPError as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Unavailable(why, where=str(repository), remedy="check id and commit; a private or gated one needs HF_TOKEN") from None
    except (HTTPError, OSError) as error:
        why = str(error.__cause__ or error).strip() or type(error).__name__
        raise Unavailable(
            f"the hub cannot be reached: {why}",
            where=str(repository),
            remedy="check the network and HF_ENDPOINT, or give a local folder",
        ) from None
    except Exception as error:  # a proxy or a token file that the client cannot use
        raise Unavailable(
            f"the hub cannot be asked ({reason(error)})",
            where=str(repository),
            remedy="check the proxies (HTTPS_PROXY, ALL_PROXY) and the token that `hf auth login` stored, or give a local folder",
        ) from None
