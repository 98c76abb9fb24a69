"""Documents of several scripts: each owns what stands between two comments with its name, and
leaves the rest alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from fairgate.support.files import atomic_path

_SECTION = re.compile(r"<!-- (?P<name>[\w-]+) -->\n.*?<!-- /(?P=name) -->\n", re.S)


def put(path: Path, name: str, text: str) -> None:
    """Replace the section of this name, or append it; the file is made where there is none."""
    section = f"<!-- {name} -->\n{text.strip()}\n<!-- /{name} -->\n"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    match = next((match for match in _SECTION.finditer(before) if match["name"] == name), None)
    after = before[: match.start()] + section + before[match.end() :] if match else "\n\n".join(filter(None, [before.rstrip(), section]))
    with atomic_path(path) as temporary:
        temporary.write_text(after, encoding="utf-8")


def kept(path: Path) -> str:
    """The sections of a document, for whoever writes the rest of it anew."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return "".join(f"\n{match.group()}" for match in _SECTION.finditer(text))
