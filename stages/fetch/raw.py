"""The raw data sets: files as published, with a record of where each came from and under which licence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fairgate.support.errors import UnknownName
from fairgate.support.files import atomic_folder, write_json
from fairgate.support.log import log
from stages.fetch.counts import count
from stages.fetch.errors import CountMismatch, Unavailable
from stages.fetch.manifest import Manifest, SetEntry
from stages.fetch.origins import Origins

_HEAD = """# Licences and attributions

Each folder holds one data set in its published form. Its text belongs to the authors named here, under the licence named here;
share-alike licences hold for derived files too. Much of the text is offensive by design: it serves to measure bias, nothing else.
"""


def fetch_raw(manifest: Manifest, origins: Origins, out: Path, *, extra: Sequence[str] = ()) -> None:
    """Write `<set>/<file>` of every default set, every optional one that is there, and those named in `extra`; SOURCES.json; LICENSES.md.

    Raises:
        UnknownName: `extra` names no set of the manifest.
        Unavailable, HashMismatch, CountMismatch: a set cannot be had as pinned; `out` stays as it was.
    """
    require_sets(manifest, extra)
    wanted = {name: entry for name, entry in manifest.sets.items() if entry.default or entry.optional or name in extra}
    described = {}
    with atomic_folder(out) as folder:
        for name, entry in wanted.items():
            try:
                described[name] = _fetch_set(name, entry, origins, folder / name)
            except Unavailable:
                if not entry.optional or name in extra:
                    raise
                (folder / name).rmdir()
                log.info("%s: not supplied; it is optional", name)
        write_json(folder / "SOURCES.json", {"schema": 1, "sets": described})
        (folder / "LICENSES.md").write_text(_licences(described), encoding="utf-8")


def require_sets(manifest: Manifest, names: Iterable[str]) -> None:
    """Raise UnknownName unless every name is a set of the manifest."""
    for name in names:
        if name not in manifest.sets:
            raise UnknownName.of("data set", name, manifest.sets, where="--set")


def _fetch_set(name: str, entry: SetEntry, origins: Origins, folder: Path) -> dict[str, Any]:
    """Fetch one set into `folder`; returns its description."""
    folder.mkdir()
    origin = origins.bring(name, entry.origins, folder, kind="dataset")
    files: dict[str, dict[str, Any]] = {}
    for file, pinned in origin.files.items():
        found = count(folder / file, entry.count)
        if found != pinned.records:
            raise CountMismatch(
                f"{found} records, {pinned.records} are expected of the {origin.kind} origin",
                where=f"{name}/{file}",
                remedy="correct `records` or `count` in the manifest",
            )
        files[file] = {"sha256": pinned.sha256, "bytes": (folder / file).stat().st_size, "records": found}
    records = sum(described["records"] for described in files.values())
    complete = entry.complete or records
    partial = records < complete
    log.info("%s: %s records%s (%s)", name, f"{records:,}", f" of {complete:,}, a partial set" if partial else "", origin.kind)
    return {
        "origin": origins.describe(origin),
        "source": entry.source,
        "licence": entry.licence,
        "attribution": entry.attribution,
        "files": files,
        "records": records,
        "complete": complete,
        "partial": partial,
    }


def _licences(described: dict[str, dict[str, Any]]) -> str:
    parts = [_HEAD]
    for name, entry in described.items():
        part = f", a partial set: {entry['records']:,} of {entry['complete']:,} records" if entry["partial"] else ""
        parts.append(f"## {name}\n\n{entry['attribution']}. Licence: {entry['licence']}. Source: {entry['source']}{part}.\n")
    return "\n".join(parts)
