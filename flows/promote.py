"""`python -m flows.promote`: a second person makes an approved version the champion. Nothing is believed, everything is recomputed.

Also `rollback` and `verify`, which share the aliases and the ledger.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fairgate.contracts.records import Verdict
from fairgate.support.digests import sha256_file
from fairgate.support.errors import FairgateError
from fairgate.support.params import pick, read_params
from flows import cli
from flows.ledger import CHAMPION, PREVIOUS, Entry, Ledger
from stages.register.evidence import check_binding, read_evidence

if TYPE_CHECKING:  # MLflow reads its environment when it is imported; the functions import it after the command line has set it
    from stages.register.registry import Registry


class Refused(FairgateError):
    """A promotion that the rules do not allow."""


def promote(root: Path, ledger: Path, *, version: str, approver: str, reason: str, name: str | None = None) -> Entry:
    """Point the alias `champion` at `version`, the former one becomes `previous`, and write it down.

    The verdict's binding is recomputed from the artifacts that the run recorded, never from this checkout.
    Raises: Refused (verdict, also a later one on the same weights; four eyes, tags, aliases moved past the ledger), BrokenBinding,
    BadRecord (ledger).
    """
    from stages.register.registry import Registry

    approver, reason = _given("approver", approver), _given("reason", reason)
    registry, book = Registry(root), Ledger(ledger)
    name = name or default_name(root)
    with book.locked():
        verify(root, ledger, name=name)
        version = str(registry.version(name, version).version)  # as the aliases spell it: MLflow takes "01" for 1
        digest, author = _recheck(registry, name, version)
        if approver.casefold() == author.casefold():
            raise Refused(
                f"{approver!r} made this version and cannot approve it",
                where=f"{name} version {version}",
                remedy="a second person promotes",
            )
        former = registry.aliases(name).get(CHAMPION)
        if former == version:
            raise Refused(f"version {version} is already the champion", where=name)
        fields = {"action": "promote", "model": name, "before": former, "after": version, "actor": approver, "reason": reason}
        return _move(registry, book, fields, digest)


def rollback(root: Path, ledger: Path, *, actor: str, reason: str, name: str | None = None) -> Entry:
    """Point `champion` back at `previous`, and write it down. It was promoted once, so nothing is judged again."""
    from stages.register.registry import Registry

    actor, reason = _given("actor", actor), _given("reason", reason)
    registry, book = Registry(root), Ledger(ledger)
    name = name or default_name(root)
    with book.locked():
        verify(root, ledger, name=name)
        live = registry.aliases(name)
        if PREVIOUS not in live:
            raise Refused("there is no former champion to go back to", where=name)
        digest = registry.version(name, live[PREVIOUS]).tags.get("verdict.sha", "")
        fields = {"action": "rollback", "model": name, "before": live[CHAMPION], "after": live[PREVIOUS], "actor": actor, "reason": reason}
        return _move(registry, book, fields, digest)


def verify(root: Path, ledger: Path, *, name: str | None = None) -> dict[str, str]:
    """The live aliases, once the ledger's chain holds and both agree.

    Raises: BadRecord (the chain is broken), Refused (an alias was moved past the ledger, or its version is lost).
    """
    from stages.register.registry import Registry

    name, registry = name or default_name(root), Registry(root)
    expected, live = Ledger(ledger).aliases(name), registry.aliases(name)
    for alias in (CHAMPION, PREVIOUS):
        if expected.get(alias) != live.get(alias):
            if alias in expected and not registry.has_version(name, expected[alias]):
                raise Refused(
                    f"the ledger has alias {alias!r} at version {expected[alias]}, which is not in the registry any more",
                    where=name,
                    remedy=f"restore the registry, or archive {ledger} under another name and remove what is left of both aliases; "
                    "the next promotion starts a new chain",
                )
            raise Refused(
                f"alias {alias!r} is at version {live.get(alias)}, the ledger says {expected.get(alias)}: it was moved past the ledger",
                where=name,
                remedy="find out who moved it, and point it back by hand (`mlflow` client) before anything is promoted",
            )
    return {alias: version for alias, version in live.items() if alias in (CHAMPION, PREVIOUS)}


def default_name(root: Path) -> str:
    from stages.register.stage import model_name

    return model_name(pick(read_params(root / "params.yaml"), "model"))


def _recheck(registry: Registry, name: str, version: str) -> tuple[str, str]:
    """Recompute the binding from the recorded artifacts; returns the verdict's digest and the author of the run."""
    from stages.register.registry import EVIDENCE

    where = f"{name} version {version}"
    found = registry.version(name, version)
    run = registry.run(found.run_id) if found.run_id else None
    if run is None:
        raise Refused("the run that made it is gone", where=where, remedy="register the candidate again (`python -m flows.release`)")
    with tempfile.TemporaryDirectory() as scratch:
        recorded = registry.download(f"runs:/{run.info.run_id}/{EVIDENCE}", Path(scratch))
        model = registry.download(f"models:/{name}/{version}", Path(scratch) / "model")
        evidence = read_evidence(recorded)
        check_binding(recorded, model / "artifacts/checkpoint", evidence)
        computed = {
            "gate.verdict": str(evidence.verdict.verdict),
            "gate.policy_sha": evidence.verdict.policy_digest,
            "verdict.sha": evidence.verdict_digest,
            "model.sha": evidence.verdict.weight_digest,
            "env.sha": sha256_file(recorded / "constraints.txt"),
        }
        if (recorded / "dvc.lock").is_file():
            computed["dvc.lock_sha"] = sha256_file(recorded / "dvc.lock")
    for tag, value in computed.items():
        if found.tags.get(tag) != value:
            raise Refused(f"tag {tag!r} is {found.tags.get(tag)!r}, the recorded artifacts give {value!r}", where=where)
    if evidence.verdict.verdict is not Verdict.approve:
        raise Refused(f"the gate said {evidence.verdict.verdict}", where=where, remedy="only an approved version can be promoted")
    if (newest := registry.overruling(evidence.verdict.weight_digest, Verdict.approve)) is not None:
        raise Refused(
            f"the newest verdict on these weights is {newest.data.tags.get('gate.verdict')} (run {newest.info.run_id})",
            where=where,
            remedy="promote another version; or, if that verdict is outdated, judge again (`dvc repro`, then `dvc repro -f -s register`) "
            "and promote the version that this registers",
        )
    author = run.data.tags.get("mlflow.user", "")
    if not author:
        raise Refused("the run names no author, so four eyes cannot be shown", where=where)
    return evidence.verdict_digest, author


def _move(registry: Registry, book: Ledger, fields: Mapping[str, str | None], verdict_digest: str) -> Entry:
    """Aliases and ledger move together: if the entry cannot be written, the aliases go back."""
    name, after, before = str(fields["model"]), fields["after"], fields["before"]
    live = registry.aliases(name)
    try:
        registry.move_alias(name, CHAMPION, after)
        if before:
            registry.move_alias(name, PREVIOUS, before)
        if fields["action"] == "promote":
            registry.tag_version(name, str(after), {"approved_by": str(fields["actor"])})
        return book.append(**fields, verdict_digest=verdict_digest)
    except BaseException:
        for alias in (CHAMPION, PREVIOUS):
            if registry.aliases(name).get(alias) != live.get(alias):
                registry.move_alias(name, alias, live.get(alias))
        raise


def _given(what: str, text: str) -> str:
    if not text.strip():
        raise Refused(f"the {what} is empty", remedy=f"give --{what}")
    return text.strip()


def main(arguments: argparse.Namespace, root: Path) -> None:
    entry = promote(
        root, Path(arguments.ledger), version=arguments.version, approver=arguments.approver, reason=arguments.reason, name=arguments.name
    )
    print(f"{entry.model}: champion is version {entry.after} (was {entry.before or 'none'}); written to {arguments.ledger}")


def parser(command: str, description: str) -> argparse.ArgumentParser:
    """The arguments that promote, rollback and verify share."""
    parser = argparse.ArgumentParser(prog=f"python -m flows.{command}", description=description)
    parser.add_argument("--name", help="registered model; taken from `model` in params.yaml if not given")
    parser.add_argument("--ledger", default="ledger.jsonl", help="the ledger's file")
    return parser


def _parser() -> argparse.ArgumentParser:
    own = parser("promote", "Make an approved version the champion.")
    own.add_argument("--version", required=True, help="version number; there is no 'latest'")
    own.add_argument("--approver", required=True, help="who approves; not the author of the run")
    own.add_argument("--reason", required=True)
    return own


if __name__ == "__main__":
    sys.exit(cli.run(main, _parser()))
