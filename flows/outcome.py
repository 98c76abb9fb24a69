"""What a release came to: the verdict, the receipt, and the words that tell them."""

from __future__ import annotations

from pathlib import Path

from fairgate.contracts.records import Registration, VerdictRecord, read_record
from fairgate.decision.table import markdown
from fairgate.support.digests import sha256_file
from fairgate.support.errors import MissingFile
from fairgate.support.exit_codes import ExitCode, exit_code_of
from fairgate.support.params import pick, read_params
from flows.dvc_runner import StageResult
from stages.register.evidence import verdict_path


def read_verdict(root: Path) -> VerdictRecord:
    """The candidate's verdict as the gate wrote it."""
    candidate = pick(read_params(root / "params.yaml"), "gate.candidate")
    return read_record(VerdictRecord, root / verdict_path(candidate))


def read_receipt(root: Path) -> Registration:
    """The receipt of the last registration.

    It holds a random run id, so it is no output of DVC.
    """
    verdict = root / verdict_path(read_verdict(root).candidate)
    return read_record(Registration, verdict.with_name("registration.json"))


def lost(root: Path) -> list[str]:
    """What the receipt promises and the live registry does not have; empty if nothing is lost.

    A missing receipt, or one of an earlier verdict, is a loss too.
    """
    from stages.register.registry import Registry

    try:
        receipt = read_receipt(root)
    except MissingFile:
        return ["the receipt"]
    if receipt.verdict_digest != sha256_file(root / verdict_path(receipt.candidate)):
        return ["a receipt of this verdict"]
    return Registry(root).lost(receipt)


def summary(root: Path, results: list[StageResult]) -> str:
    """The end of a release: stages, verdict with its reasons, report, and registered version."""
    verdict, receipt = read_verdict(root), read_receipt(root)
    width = max(len(result.stage) for result in results)
    lines = ["", *(f"  {r.stage:<{width}}  {'ran' if r.changed else 'skipped':<7}  {r.seconds:7.1f} s" for r in results), ""]
    lines += [f"Verdict on {verdict.candidate}: {verdict.verdict}", *(f"  - {reason}" for reason in verdict.reasons)]
    lines.append(f"Report: {(root / 'data/reports/index.html').resolve()}")
    if receipt.model_version:
        lines.append(f"Registered: {receipt.model_name} version {receipt.model_version}, alias candidate ({receipt.tracking_uri})")
    else:
        lines.append(f"Registered: no version, because the gate said {verdict.verdict}; run {receipt.run_id} ({receipt.tracking_uri})")
    return "\n".join(lines)


def closing_words(verdict: VerdictRecord) -> tuple[str, ExitCode]:
    """The last line of a command that ends in a verdict, and the code it exits with."""
    code = exit_code_of(verdict.verdict)
    return f"The pipeline ran to its end. Verdict: {verdict.verdict}; exit code {code:d} ({code.meaning}).", code


def verdict_table(verdict: VerdictRecord) -> str:
    """The verdict as Markdown, for Prefect's artifact."""
    return f"# {verdict.verdict}: {verdict.candidate} against {verdict.reference}\n{markdown(verdict, explained=True)}"
