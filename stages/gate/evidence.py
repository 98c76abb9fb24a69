"""What a verdict rests on, read and proven to belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fairgate.contracts.item_table import read_items
from fairgate.contracts.recipes import is_unquantized
from fairgate.contracts.records import Environment, Quantization, Role, read_record
from fairgate.decision.policy import Policy
from fairgate.metrics.noise import FILE, Noise, read_noise
from fairgate.support.errors import BadRecord, MissingFile
from fairgate.support.params import pick, read_params

# What must be equal in both evaluations. Device and threads may differ: they move a log-likelihood
# in its last digits.
_SAME = ("role", "versions", "dtype", "start_token", "context", "seed")


@dataclass(frozen=True)
class Evidence:
    """Item tables of candidate and reference, the candidate's records, and the files they are from.

    Args:
        candidate: Items of the candidate.
        reference: The same items of the reference.
        quantization: How the candidate was made.
        noise: Flips of the reference against itself. None means that no check asks for them.
        files: Every file that was read.
    """

    candidate: pa.Table
    reference: pa.Table
    quantization: Quantization
    noise: Noise | None
    files: tuple[Path, ...]


def read_evidence(root: Path, params: Path, policy: Policy) -> Evidence:
    """Read everything below `root` that the policy needs.

    Raises:
        UnknownName: The policy names a recipe that does not exist.
        MissingFile: A file of an earlier stage is missing.
        BadRecord: The files do not belong together; the message names the stage to run.
    """
    data = root / "data"
    recipes = pick(read_params(params), "recipes", where=str(params))
    for name in (policy.candidate, policy.reference):
        pick(recipes, name, kind="recipe", where=f"{params}:gate")
    candidate, reference = (data / "evaluation" / name for name in (policy.candidate, policy.reference))
    records = data / "models" / policy.candidate / "quantization.json"
    files = [
        *(folder / name for folder in (candidate, reference) for name in ("items.parquet", "environment.json")),
        records,
    ]
    for path in files:
        if not path.is_file():
            remedy = "run `dvc repro gate`, which makes what the gate needs"
            raise MissingFile("no such file", where=str(path), remedy=remedy)
    quantization = read_record(Quantization, records)
    if quantization.recipe != policy.candidate:
        what = f"holds recipe {quantization.recipe!r} instead of {policy.candidate!r}"
        raise BadRecord(what, where=str(records), remedy="run `dvc repro quantize`")
    measured, measured_reference = (read_record(Environment, folder / "environment.json") for folder in (candidate, reference))
    _require_one_measurement(measured, measured_reference, quantization)
    method = recipes[policy.reference]["method"]
    _require_reference(data, policy.reference, method, measured_reference, quantization)
    noise = None
    if any(check.above_noise for check in policy.checks):
        noise = read_noise(reference, measured_reference)
        if noise is None:
            remedy = f"run `python -m stages.evaluate --recipe {policy.reference} --repeat`, or remove above_noise from the checks"
            what = "no noise floor, which the policy asks for"
            raise MissingFile(what, where=str(reference / FILE), remedy=remedy)
        files.append(reference / FILE)
    return Evidence(
        candidate=_items(candidate, policy.candidate),
        reference=_items(reference, policy.reference),
        quantization=quantization,
        noise=noise,
        files=tuple(files),
    )


def _items(folder: Path, recipe: str) -> pa.Table:
    path = folder / "items.parquet"
    table = read_items(path)
    models = pc.unique(table["model"]).to_pylist()
    if models != [recipe]:
        what = f"holds items of {models} instead of {recipe!r}"
        raise BadRecord(what, where=str(path), remedy="run `dvc repro evaluate`")
    return table


def _require_one_measurement(candidate: Environment, reference: Environment, quantization: Quantization) -> None:
    """Raise BadRecord unless both tables were measured alike and for the gate.

    The candidate's must also be of the weights to be judged.
    """
    remedy = "run `dvc repro evaluate`"
    if candidate.weight_digest != quantization.weight_digest:
        what = f"the items are of weights {candidate.weight_digest[:12]}, quantization.json names {quantization.weight_digest[:12]}"
        where = f"environment.json of {quantization.recipe}"
        raise BadRecord(what, where=where, remedy=remedy)
    for field in _SAME:
        values = getattr(candidate, field), getattr(reference, field)
        if values[0] != values[1]:
            what = f"{field} differs: candidate {values[0]}, reference {values[1]}"
            raise BadRecord(what, where="environment.json", remedy=remedy)
    if candidate.role is not Role.gate:
        what = f"the items were measured for {candidate.role}, not for the gate"
        raise BadRecord(what, where="environment.json", remedy=remedy)


def _require_reference(data: Path, name: str, method: str, measured: Environment, candidate: Quantization) -> None:
    """Raise BadRecord unless the reference's items are of its own weights.

    The reference must also come from the base that the candidate was made from.
    """
    base = expected = candidate.base_weight_digest
    remedy = "run `dvc repro`, which makes both from one base"
    if not is_unquantized(method):
        reference = read_record(Quantization, data / "models" / name / "quantization.json")
        expected = reference.weight_digest
        if reference.base_weight_digest != base:
            what = f"made from base weights {reference.base_weight_digest[:12]}, the candidate from {base[:12]}"
            raise BadRecord(what, where=f"quantization.json of {name}", remedy=remedy)
    if measured.weight_digest != expected:
        what = f"the items are of weights {measured.weight_digest[:12]} instead of {expected[:12]}"
        raise BadRecord(what, where=f"environment.json of {name}", remedy=remedy)
