"""What the weights depend on: the base, the data, the versions and the code. An unfinished run is
only continued if nothing changed.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

import torch

from fairgate.model_folder.weights import weight_digest
from fairgate.support.digests import sha256_file, sha256_folder, sha256_json
from stages.quantize.run.export import version_of

# The code that the weights depend on: what this stage imports, and nothing else (a test compares).
CODE = (
    "fairgate/__init__.py",
    "fairgate/contracts/__init__.py",
    "fairgate/contracts/contributions.py",
    "fairgate/contracts/gptq_format.py",
    "fairgate/contracts/recipes.py",
    "fairgate/contracts/records.py",
    "fairgate/model_folder/__init__.py",
    "fairgate/model_folder/architecture.py",
    "fairgate/model_folder/check.py",
    "fairgate/model_folder/files.py",
    "fairgate/model_folder/findings.py",
    "fairgate/model_folder/names.py",
    "fairgate/model_folder/tokenizer.py",
    "fairgate/model_folder/values.py",
    "fairgate/model_folder/weights.py",
    "fairgate/support/__init__.py",
    "fairgate/support/cli.py",
    "fairgate/support/command.py",
    "fairgate/support/devices.py",
    "fairgate/support/digests.py",
    "fairgate/support/disk.py",
    "fairgate/support/encoding.py",
    "fairgate/support/errors.py",
    "fairgate/support/exit_codes.py",
    "fairgate/support/files.py",
    "fairgate/support/git.py",
    "fairgate/support/library_errors.py",
    "fairgate/support/locks.py",
    "fairgate/support/log.py",
    "fairgate/support/names.py",
    "fairgate/support/offline.py",
    "fairgate/support/output.py",
    "fairgate/support/params.py",
    "fairgate/support/positions.py",
    "fairgate/support/redaction.py",
    "fairgate/support/strict_yaml.py",
    "fairgate/support/timing.py",
    "fairgate/support/tokens.py",
    "stages/quantize",
)


def input_digests(files: Iterable[str], base: Path, calibration: Path) -> dict[str, str | None]:
    """Digests of what is read; None means data that the recipe does not use.

    Args:
        files: names in the folder `calibration`; those of pairs have `pairs` in their name.
    """

    def digest(names: list[str]) -> str | None:
        digests = {name: sha256_file(calibration / name) for name in names}
        return next(iter(digests.values())) if len(digests) == 1 else sha256_json(digests) if digests else None

    names = sorted(set(files))
    return {
        "base_digest": sha256_folder(base),
        "base_weight_digest": weight_digest(base),
        "pairs_digest": digest([name for name in names if "pairs" in name]),
        "text_digest": digest([name for name in names if "pairs" not in name]),
    }


def versions(device: torch.device) -> dict[str, str]:
    """What the numbers depend on besides data and settings."""
    named = {"python": platform.python_version(), "torch": torch.__version__, "device": device.type}
    named |= {package: version_of(package) for package in ("fairgate", "transformers", "safetensors")}
    if device.type == "cuda":
        named |= {"gpu": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    return named


def code_digest() -> str:
    """Digest of the code that the weights depend on."""
    root = Path(__file__).parents[3]
    files = [path for part in CODE for path in ([root / part] if (root / part).is_file() else sorted((root / part).rglob("*.*")))]
    return sha256_json({path.relative_to(root).as_posix(): sha256_file(path) for path in files if path.suffix != ".pyc"})
