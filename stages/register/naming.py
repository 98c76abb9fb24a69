"""The name under which the versions of a base model are registered."""

from __future__ import annotations

import hashlib
import re
import tempfile
import unicodedata
from pathlib import Path

from fairgate.support.errors import FairgateError
from fairgate.support.params import PARAMS, read_params
from stages.register.registry import EVIDENCE, Registry

BASE = "base"  # the tag of a registered model that names its base model
LONGEST_NAME = 256  # the width of a column of MLflow's database
_HUB_ID = re.compile(r"(\w[\w.\-]*/[\w.\-]+)@[0-9a-f]{40}")


def registered_name(registry: Registry, model: str) -> str:
    """The registered name that is this model's own.

    `./Foo` and `./foo`, and `a/x` and `b/x` of the hub, have one plain name. The model that took it
    first keeps it, and the other one gets the name with its digest.

    Args:
        registry: where the names are taken.
        model: a name of the manifest, a folder, or `owner/name@commit`.
    """
    name = model_name(model)
    owner = registry.model_tags(name).get(BASE) or _recorded(registry, name)
    return name if owner in (None, base_name(model)) else _with_digest(name, base_name(model))


def base_name(model: str) -> str:
    """What tells a base model from others: its hub id without the commit, or its folder's name.

    Args:
        model: a name of the manifest, a folder, or `owner/name@commit`.
    """
    hub = _HUB_ID.fullmatch(model)
    return hub[1] if hub else _last_part(model)


def model_name(model: str) -> str:
    """Plain name of a base model: `fairgate-` and the last part of the model's name.

    The registry takes letters, digits, `_` and `-`. Where a name of another script, a very long one
    or one of marks alone would lose what tells it from others, its digest is added.

    Args:
        model: a name of the manifest, a folder, or `owner/name@commit`.
    """
    base = _last_part(model)
    name = f"fairgate-{re.sub(r'[^A-Za-z0-9_-]+', '-', base).strip('-').lower()}"
    lossy = not base.isascii() or name == "fairgate-" or len(name) > LONGEST_NAME
    return _with_digest(name, base) if lossy else name


def _last_part(model: str) -> str:
    path = Path(re.sub(r"@[0-9a-f]{40}$", "", model))
    # `.` and `..` are no names; the folder has one. Disks spell accents in two ways.
    return unicodedata.normalize("NFC", path.name if path.name not in ("", "..") else path.resolve().name)


def _with_digest(name: str, base: str) -> str:
    digest = hashlib.sha256(base.encode()).hexdigest()[:8]
    return f"{name.removesuffix('-')[: LONGEST_NAME - len(digest) - 1]}-{digest}"


def _recorded(registry: Registry, name: str) -> str | None:
    """The base model that the latest version's run recorded.

    Registries of 0.1.0 have no tag. None means that nothing legible is recorded.
    """
    try:
        run_id = registry.latest_run(name)
        if run_id is None or registry.run(run_id) is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            model = read_params(registry.download(f"runs:/{run_id}/{EVIDENCE}/{PARAMS}", Path(folder))).get("model")
    except FairgateError:
        return None
    return base_name(model) if isinstance(model, str) else None
