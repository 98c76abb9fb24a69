"""The raw data sets: files as published, with a record of their origin and license."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fairgate.support.errors import UnknownName
from fairgate.support.files import atomic_folder, write_json
from fairgate.support.log import log
from stages.fetch.counts import count_records
from stages.fetch.errors import CountMismatch, Unavailable
from stages.fetch.manifest import Manifest, SetEntry
from stages.fetch.origins import Origins

_HEAD = """# Licences and attributions

Each folder holds one data set in its published form. Its text belongs to the authors named here, under the licence named here;
share-alike licences hold for derived files too. Much of the text is offensive by design: it serves to measure bias, nothing else.
"""


def fetch_raw(manifest: Manifest, origins: Origins, out: Path, *, extra: Sequence[str] = ()) -> None:
    """Write `<set>/<file>` of the data sets, SOURCES.json and LICENSES.md to the folder `out`.

    Args:
        manifest: what can be fetched.
        origins: where from.
        out: the output folder. After an error it is as it was.
        extra: names of sets to fetch besides the default ones and the optional ones that are there.

    Raises:
        UnknownName: `extra` names no set of the manifest.
        Unavailable, HashMismatch, CountMismatch: no origin has a set as pinned.
    """
    require_sets(manifest, extra)
    chosen = {name: entry for name, entry in manifest.sets.items() if entry.default or entry.optional or name in extra}
    described = {}
    with atomic_folder(out) as folder:
        for name, entry in chosen.items():
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
    """Fetch one data set into `folder`. Returns its description."""
    folder.mkdir()
    origin = origins.copy_from_first(name, entry.origins, folder, kind="dataset")
    files: dict[str, dict[str, Any]] = {}
    for file, pinned in origin.files.items():
        records = count_records(folder / file, entry.count)
        if records != pinned.records:
            raise CountMismatch(
                f"{records} records, {pinned.records} are expected of the {origin.kind} origin",
                where=f"{name}/{file}",
                remedy="correct `records` or `count` in the manifest",
            )
        files[file] = {"sha256": pinned.sha256, "bytes": (folder / file).stat().st_size, "records": records}
    total = sum(file["records"] for file in files.values())
    complete = entry.complete or total
    partial = total < complete
    log.info("%s: %s records%s (%s)", name, f"{total:,}", f" of {complete:,}, a partial set" if partial else "", origin.kind)
    return {
        "origin": origins.describe(origin),
        "source": entry.source,
        "licence": entry.licence,
        "attribution": entry.attribution,
        "files": files,
        "records": total,
        "complete": complete,
        "partial": partial,
    }


def _licences(described: dict[str, dict[str, Any]]) -> str:
    parts = [_HEAD]
    for name, entry in described.items():
        part = f", a partial set: {entry['records']:,} of {entry['complete']:,} records" if entry["partial"] else ""
        parts.append(f"## {name}\n\n{entry['attribution']}. Licence: {entry['licence']}. Source: {entry['source']}{part}.\n")
    return "\n".join(parts)
