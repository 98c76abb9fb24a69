"""The verdict is bound by hashes to the policy, weights and inputs that it was reached on.

The same check runs on the project (register) and on the artifacts that a run recorded (promote).
Both have the same layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairgate.contracts.records import Quantization, VerdictRecord, read_record
from fairgate.model_folder.weights import weight_digest
from fairgate.support.digests import sha256_file, sha256_json
from fairgate.support.errors import FairgateError
from fairgate.support.exit_codes import ExitCode
from fairgate.support.params import pick, read_params


class BrokenBinding(FairgateError):
    """A verdict that does not belong to the files beside it."""

    exit_code = ExitCode.negative


@dataclass(frozen=True)
class Evidence:
    """A verdict and what it is bound to."""

    verdict: VerdictRecord
    verdict_digest: str  # sha256 of verdict.json
    policy: dict[str, Any]  # section `gate` of params.yaml
    quantization: Quantization
    files: tuple[str, ...]  # what a later check needs; paths relative to the root


def verdict_path(candidate: str) -> str:
    return f"data/reports/{candidate}/verdict.json"


def quantization_path(candidate: str) -> str:
    return f"data/models/{candidate}/quantization.json"


def read_evidence(root: Path, params: str = "params.yaml") -> Evidence:
    """The candidate's verdict and records below `root`. Nothing is checked yet.

    Raises:
        MissingFile, BadRecord: the message names the file and the stage that writes it.
    """
    policy = pick(read_params(root / params), "gate")
    candidate = pick(policy, "candidate", where=f"{root / params}:gate")
    path = verdict_path(candidate)
    verdict = read_record(VerdictRecord, root / path)
    if verdict.candidate != candidate:
        raise _broken(root / path, f"the verdict is about {verdict.candidate!r}, the policy names {candidate!r}")
    quantization = read_record(Quantization, root / quantization_path(candidate))
    files = (params, path, quantization_path(candidate), *verdict.inputs)
    return Evidence(verdict, sha256_file(root / path), policy, quantization, tuple(dict.fromkeys(files)))


def check_binding(root: Path, checkpoint: Path, evidence: Evidence) -> None:
    """Recompute every digest that the verdict binds.

    Args:
        root: folder with params.yaml and data/, as in the project.
        checkpoint: folder of the packed weights.
        evidence: what `read_evidence` found below `root`.

    Raises:
        BrokenBinding: the policy, the weights or an input is not what the gate read.
    """
    verdict = evidence.verdict
    where = root / verdict_path(verdict.candidate)
    if sha256_json(evidence.policy) != verdict.policy_digest:
        raise _broken(where, "the policy (section `gate` of params.yaml) is not the one of the verdict")
    for name, digest in verdict.inputs.items():
        if not (root / name).is_file():
            raise _broken(where, f"input {name} of the verdict is missing")
        if sha256_file(root / name) != digest:
            raise _broken(where, f"input {name} has changed since the verdict")
    if evidence.quantization.weight_digest != verdict.weight_digest:
        raise _broken(where, "quantization.json and the verdict name different weights")
    if weight_digest(checkpoint) != verdict.weight_digest:
        raise _broken(where, f"the weights in {checkpoint} are missing or have changed since the verdict")
    for name, digest in evidence.quantization.files.items():
        if not (checkpoint / name).is_file() or sha256_file(checkpoint / name) != digest:
            raise _broken(where, f"{checkpoint / name} is missing or has changed since the model was quantized")


def _broken(where: Path, what: str) -> BrokenBinding:
    return BrokenBinding(what, where=str(where), remedy="run `dvc repro gate`; a verdict holds for exactly the files it was reached on")
