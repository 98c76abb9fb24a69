"""The stage that decides: policy, items and records in, verdict.json out."""

from __future__ import annotations

from pathlib import Path

from fairgate.contracts.records import VerdictRecord, write_record
from fairgate.decision.policy import read_policy
from fairgate.decision.verdict import decide
from fairgate.support.digests import sha256_file, sha256_json
from fairgate.support.params import pick, read_params
from stages.gate.evidence import read_evidence


def gate(root: Path, params: Path) -> VerdictRecord:
    """Judge the policy's candidate and write its verdict.

    Args:
        root: The project's folder, with data/ below it.
        params: The parameter file.

    Raises:
        FairgateError: The policy is not valid, or the evidence is not whole. Then no verdict is
            left, not even an older one.
    """
    policy = read_policy(params)
    target = root / "data" / "reports" / policy.candidate / "verdict.json"
    # A verdict must not outlive the inputs that it judged, whatever goes wrong below.
    target.unlink(missing_ok=True)
    evidence = read_evidence(root, params, policy)
    decision = decide(policy, evidence.candidate, evidence.reference, evidence.quantization, evidence.noise)
    record = VerdictRecord(
        verdict=decision.verdict,
        candidate=policy.candidate,
        reference=policy.reference,
        reasons=decision.reasons,
        checks=decision.checks,
        policy_digest=sha256_json(pick(read_params(params), "gate")),
        weight_digest=evidence.quantization.weight_digest,
        inputs={path.relative_to(root).as_posix(): sha256_file(path) for path in evidence.files},
        confidence=policy.confidence,
        draws=policy.draws,
        seed=policy.seed,
    )
    write_record(target, record)
    return record
