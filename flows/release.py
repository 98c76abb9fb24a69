"""`python -m flows.release`: the whole pipeline, one Prefect task per DVC stage, and what came of it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fairgate.contracts.records import Registration, VerdictRecord, read_record
from fairgate.support.digests import sha256_file
from fairgate.support.errors import FairgateError, MissingFile
from fairgate.support.params import pick, read_params
from flows import cli
from flows.dvc_runner import TOKEN, StageResult
from flows.lock import hold
from flows.preflight import check_params
from flows.server import scheduling_server
from stages.register.evidence import verdict_path

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

REGISTER = "register"


def main(arguments: argparse.Namespace, root: Path) -> None:
    if arguments.serve or arguments.cron:
        if arguments.model:
            with hold(root):
                set_model(root, arguments.model)
        check_params(root)
        with scheduling_server(root):
            from flows.deployments import release

            release.serve(name="release", cron=arguments.cron, parameters={"root": str(root)}, limit=1)
        return
    with hold(root) as token:
        if arguments.model:
            set_model(root, arguments.model)
        check_params(root)
        os.environ[TOKEN] = token  # marks the embedded server too
        # Prefect reads its home and its logging when it is imported.
        from flows.deployments import release, start_server

        start_server()
        state = cast("State[Any]", release(str(root), return_state=True))
    if state.is_failed():
        raise FairgateError(state.message or "the release failed")


def set_model(root: Path, model: str) -> None:
    """Write `model:` of params.yaml; its comments stay."""
    from dvc.utils.serialize import modify_yaml

    path = root / "params.yaml"
    if pick(read_params(path), "model", where=str(path)) != model:
        with modify_yaml(str(path)) as params:
            params["model"] = model


def read_verdict(root: Path) -> VerdictRecord:
    """The candidate's verdict as the gate wrote it."""
    candidate = pick(read_params(root / "params.yaml"), "gate.candidate")
    return read_record(VerdictRecord, root / verdict_path(candidate))


def read_receipt(root: Path) -> Registration:
    """The receipt of the last registration, which is no DVC output: it holds a random run id."""
    return read_record(Registration, root / Path(verdict_path(read_verdict(root).candidate)).with_name("registration.json"))


def lost(root: Path) -> list[str]:
    """What the receipt promises and the live registry does not have, or why there is no receipt to go by."""
    from stages.register.registry import Registry

    try:
        receipt = read_receipt(root)
    except MissingFile:
        return ["the receipt"]
    if receipt.verdict_digest != sha256_file(root / verdict_path(receipt.candidate)):
        return ["a receipt of this verdict"]
    return Registry(root).lost(receipt)


def summary(root: Path, results: list[StageResult]) -> str:
    """The end of a release: stages, verdict with its reasons, report, registered version or why there is none."""
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


def verdict_table(verdict: VerdictRecord) -> str:
    """The verdict as markdown."""
    lines = [f"# {verdict.verdict}: {verdict.candidate} against {verdict.reference}", *(f"- {reason}" for reason in verdict.reasons)]
    lines += ["", "| check | group | outcome | harm | margin | n | why |", "|---|---|---|---|---|---|---|"]
    for check in verdict.checks:
        harm = "-" if check.harm is None else f"{check.harm:.4g}"
        lines.append(
            f"| {check.name} | {check.group or 'all'} | {check.outcome} | {harm} | {check.margin:g} | {check.n} | {check.reason} |"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flows.release", description="Run the whole pipeline and print what came of it.")
    parser.add_argument("--model", help="base model: a name of the manifest, a folder, or owner/name@commit; written to params.yaml")
    parser.add_argument("--cron", help="keep running and release on this schedule, e.g. '0 3 * * 1'")
    parser.add_argument("--serve", action="store_true", help="keep running and release when Prefect is asked to")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main, parser()))
