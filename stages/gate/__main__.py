"""`python -m stages.gate`: judge gate.candidate against gate.reference and write data/reports/<candidate>/verdict.json."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fairgate.contracts.item_table import read_items
from fairgate.contracts.recipes import is_unquantized
from fairgate.contracts.records import Environment, Quantization, Role, VerdictRecord, read_record, write_record
from fairgate.decision.policy import read_policy
from fairgate.decision.table import terminal
from fairgate.decision.verdict import decide
from fairgate.metrics.noise import FILE, read_noise
from fairgate.support.cli import run
from fairgate.support.digests import sha256_file, sha256_json
from fairgate.support.errors import BadRecord, MissingFile
from fairgate.support.params import pick, read_params

DATA = Path("data")


def main(arguments: argparse.Namespace) -> None:
    policy = read_policy(arguments.params)
    target = DATA / "reports" / policy.candidate / "verdict.json"
    # A verdict must not outlive the inputs that it judged, whatever goes wrong below.
    target.unlink(missing_ok=True)
    recipes = pick(read_params(arguments.params), "recipes", where=arguments.params)
    for name in (policy.candidate, policy.reference):
        pick(recipes, name, kind="recipe", where=f"{arguments.params}:gate")
    q, b = (DATA / "evaluation" / name for name in (policy.candidate, policy.reference))
    records = DATA / "models" / policy.candidate / "quantization.json"
    inputs = [q / "items.parquet", q / "environment.json", b / "items.parquet", b / "environment.json", records]
    for path in inputs:
        if not path.is_file():
            raise MissingFile("no such file", where=str(path), remedy="run `dvc repro gate`, which makes what the gate needs")
    quantization = read_record(Quantization, records)
    if quantization.recipe != policy.candidate:
        what = f"holds recipe {quantization.recipe!r} instead of {policy.candidate!r}"
        raise BadRecord(what, where=str(records), remedy="run `dvc repro quantize`")
    measured, compared = (read_record(Environment, folder / "environment.json") for folder in (q, b))
    _require_one_measurement(measured, compared, quantization)
    _require_reference(policy.reference, recipes[policy.reference]["method"], compared, quantization)
    noise = None
    if any(check.above_noise for check in policy.checks):
        noise = read_noise(b, compared)
        if noise is None:
            remedy = f"run `python -m stages.evaluate --recipe {policy.reference} --repeat`, or remove above_noise from the checks"
            raise MissingFile("no noise floor, which the policy asks for", where=str(b / FILE), remedy=remedy)
        inputs.append(b / FILE)
    decision = decide(policy, _items(q, policy.candidate), _items(b, policy.reference), quantization, noise)
    record = VerdictRecord(
        verdict=decision.verdict,
        candidate=policy.candidate,
        reference=policy.reference,
        reasons=decision.reasons,
        checks=decision.checks,
        policy_digest=sha256_json(pick(read_params(arguments.params), "gate")),
        weight_digest=quantization.weight_digest,
        inputs={path.as_posix(): sha256_file(path) for path in inputs},
        confidence=policy.confidence,
        draws=policy.draws,
        seed=policy.seed,
    )
    write_record(target, record)
    print(terminal(record))


def _items(folder: Path, model: str) -> pa.Table:
    path = folder / "items.parquet"
    table = read_items(path)
    others = pc.unique(table["model"]).to_pylist()
    if others != [model]:
        raise BadRecord(f"holds items of {others} instead of {model!r}", where=str(path), remedy="run `dvc repro evaluate`")
    return table


def _require_one_measurement(candidate: Environment, reference: Environment, quantization: Quantization) -> None:
    """Raise BadRecord unless both tables were measured alike, for the gate, and the candidate's on the weights to be judged.

    Device and threads may differ: they move a log-likelihood in its last digits.
    """
    remedy = "run `dvc repro evaluate`"
    if candidate.weight_digest != quantization.weight_digest:
        what = f"the items are of weights {candidate.weight_digest[:12]}, quantization.json names {quantization.weight_digest[:12]}"
        raise BadRecord(what, where=f"environment.json of {quantization.recipe}", remedy=remedy)
    for field in ("role", "versions", "dtype", "start_token", "context", "seed"):
        one, other = getattr(candidate, field), getattr(reference, field)
        if one != other:
            raise BadRecord(f"{field} differs: candidate {one}, reference {other}", where="environment.json", remedy=remedy)
    if candidate.role is not Role.gate:
        raise BadRecord(f"the items were measured for {candidate.role}, not for the gate", where="environment.json", remedy=remedy)


def _require_reference(name: str, method: str, measured: Environment, candidate: Quantization) -> None:
    """Raise BadRecord unless the reference's items are of its weights, and of the base that the candidate was made from."""
    base, remedy = candidate.base_weight_digest, "run `dvc repro`, which makes both from one base"
    expected = base
    if not is_unquantized(method):
        other = read_record(Quantization, DATA / "models" / name / "quantization.json")
        expected = other.weight_digest
        if other.base_weight_digest != base:
            what = f"made from base weights {other.base_weight_digest[:12]}, the candidate from {base[:12]}"
            raise BadRecord(what, where=f"quantization.json of {name}", remedy=remedy)
    if measured.weight_digest != expected:
        what = f"the items are of weights {measured.weight_digest[:12]} instead of {expected[:12]}"
        raise BadRecord(what, where=f"environment.json of {name}", remedy=remedy)


if __name__ == "__main__":
    sys.exit(run("gate", main, argparse.ArgumentParser(prog="python -m stages.gate", description=__doc__)))
