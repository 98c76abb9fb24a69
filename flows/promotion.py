"""Move the alias `champion` in the registry, and write down every move in the ledger.

A second person promotes an approved version. Nothing is taken on trust: the binding of the verdict
is recomputed from the recorded artifacts.
"""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fairgate.contracts.records import Verdict
from fairgate.support.digests import sha256_file
from fairgate.support.errors import FairgateError
from fairgate.support.exit_codes import ExitCode
from fairgate.support.names import check_registered, check_version
from fairgate.support.params import pick, read_params
from flows.ledger import CHAMPION, PREVIOUS, Entry, Ledger
from stages.register.evidence import check_binding, read_evidence

# MLflow reads its environment when it is imported, so the functions import it: by then the command
# line has set the environment.
if TYPE_CHECKING:
    from stages.register.registry import Registry

_NOT_IN_A_LINE = frozenset(("Cc", "Cs", "Zl", "Zp"))  # control characters, bytes that are no UTF-8, line ends


class Refused(FairgateError):
    """The rules do not allow this promotion, or the live aliases are not what the ledger says."""

    exit_code = ExitCode.negative


def promote(root: Path, ledger: Path, *, version: str, approver: str, reason: str, name: str | None = None) -> Entry:
    """Point the alias `champion` at `version`, and `previous` at the former champion.

    The verdict's binding is recomputed from the artifacts that the run recorded, never from this
    checkout.

    Raises:
        Refused: the verdict or a later one on the same weights does not approve, the approver made
            the version, a tag was changed, or an alias was moved without the ledger.
        BrokenBinding: the recorded artifacts do not belong to the verdict.
        BrokenLedger: the chain of the ledger does not hold.
    """
    from stages.register.registry import Registry

    check_version(version)
    approver, reason = _require_name("approver", approver), _require_text("reason", reason)
    registry, book = Registry(root), Ledger(ledger)
    name = _registered(root, name)
    with book.locked():
        verify(root, ledger, name=name)
        version = str(registry.version(name, version).version)  # as the aliases spell it: MLflow takes "01" for 1
        digest, author = _recheck(registry, name, version)
        if _person(approver) == _person(author):
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
    """Point `champion` back at `previous`. That version was promoted once, so nothing is judged."""
    from stages.register.registry import Registry

    actor, reason = _require_name("actor", actor), _require_text("reason", reason)
    registry, book = Registry(root), Ledger(ledger)
    name = _registered(root, name)
    with book.locked():
        verify(root, ledger, name=name)
        live = registry.aliases(name)
        if PREVIOUS not in live:
            raise Refused("there is no former champion to go back to", where=name)
        digest = registry.version(name, live[PREVIOUS]).tags.get("verdict.sha", "")
        fields = {"action": "rollback", "model": name, "before": live[CHAMPION], "after": live[PREVIOUS], "actor": actor, "reason": reason}
        return _move(registry, book, fields, digest)


def verify(root: Path, ledger: Path, *, name: str | None = None) -> dict[str, str]:
    """Check the chain of the ledger and compare it with the live aliases, which are returned.

    Raises:
        BrokenLedger: the chain does not hold.
        Refused: an alias was moved without the ledger, or its version is lost.
    """
    from stages.register.registry import Registry

    name, registry = _registered(root, name), Registry(root)
    expected, live = Ledger(ledger).aliases(name), registry.aliases(name)
    for alias in (CHAMPION, PREVIOUS):
        if expected.get(alias) != live.get(alias):
            if not ledger.exists():
                raise Refused(
                    f"there is no ledger here, but version {live[alias]} is the {alias}",
                    where=str(ledger),
                    remedy="give the ledger's file as --ledger, or restore it from git",
                )
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


def _registered(root: Path, name: str | None) -> str:
    """The registered model that is asked for."""
    if name is None:
        return default_name(root)
    check_registered(name)
    return name


def default_name(root: Path) -> str:
    from stages.register.naming import registered_name
    from stages.register.registry import Registry

    return registered_name(Registry(root), pick(read_params(root / "params.yaml"), "model"))


def _recheck(registry: Registry, name: str, version: str) -> tuple[str, str]:
    """Recompute the binding from the recorded artifacts.

    Returns:
        the verdict's digest and the author of the run.
    """
    from stages.register.registry import EVIDENCE

    where = f"{name} version {version}"
    registered = registry.version(name, version)
    run = registry.run(registered.run_id) if registered.run_id else None
    if run is None:
        raise Refused("the run that made it is gone", where=where, remedy="register the candidate again (`fairgate release`)")
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
        if registered.tags.get(tag) != value:
            raise Refused(f"tag {tag!r} is {registered.tags.get(tag)!r}, the recorded artifacts give {value!r}", where=where)
    if evidence.verdict.verdict is not Verdict.approve:
        raise Refused(f"the gate said {evidence.verdict.verdict}", where=where, remedy="only an approved version can be promoted")
    if (newest := registry.overruling(evidence.verdict.weight_digest, Verdict.approve)) is not None:
        raise Refused(
            f"the newest verdict on these weights is {newest.data.tags.get('gate.verdict')} (run {newest.info.run_id})",
            where=where,
            remedy="promote another version; or, if that verdict is outdated, judge again (`dvc repro`, then `dvc repro -f -s register`) "
            "and promote the version that this registers",
        )
    author = run.data.tags.get("mlflow.user", "").strip()
    if not author:
        raise Refused("the run names no author, so four eyes cannot be shown", where=where)
    return evidence.verdict_digest, author


def _move(registry: Registry, book: Ledger, fields: Mapping[str, str | None], verdict_digest: str) -> Entry:
    """Move the aliases and write the entry; if it cannot be written, the aliases go back."""
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


def _require_text(what: str, text: str) -> str:
    if not text.strip():
        raise FairgateError(f"the {what} is empty", remedy=f"give --{what}")
    if any(unicodedata.category(letter) in _NOT_IN_A_LINE for letter in text):
        raise FairgateError(f"the {what} is not one line of text (got {text!r})", remedy=f"correct --{what}")
    return text.strip()


def _require_name(what: str, name: str) -> str:
    name = _require_text(what, name)
    if not name.isprintable():
        raise FairgateError(f"the {what} has a character that cannot be printed (got {name!r})", remedy=f"correct --{what}")
    return name


def _person(name: str) -> str:
    """The name without what makes no other person: case, width, composition, what is invisible."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(letter for letter in folded if letter.isprintable())
