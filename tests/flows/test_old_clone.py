"""What an earlier version of the code wrote is read, checked and continued by this one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fairgate.__main__ import main
from fairgate.contracts.records import Registration, read_record
from flows.ledger import Ledger
from flows.outcome import lost, read_receipt, read_verdict
from flows.preflight import check_params
from stages.register.registry import Registry
from stages.register.stage import register
from tests.flows.old_clone import FOLDER, restore
from tests.mlflow_database import migrated, own_tracking  # noqa: F401

pytestmark = pytest.mark.usefixtures("own_tracking")
NAME = "fairgate-tiny"


@pytest.fixture
def clone(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    root = restore(tmp_path, migrated)
    monkeypatch.chdir(root)
    return root


def test_the_shipped_parameters_of_an_old_clone_are_valid(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "shipped_params.yaml", tmp_path / "params.yaml")
    check_params(tmp_path)


def test_verify_is_clean_and_promotions_go_on(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = (clone / "ledger.jsonl").read_text()
    assert main(["verify"]) == 0
    assert capsys.readouterr().out == f"{NAME}: champion = version 2, previous = version 1\n"
    assert main(["rollback", "--actor", "third", "--reason", "complaints"]) == 0
    assert main(["promote", "--version", "2", "--approver", "second", "--reason", "mended"]) == 0
    assert main(["verify"]) == 0
    assert (clone / "ledger.jsonl").read_text().startswith(old)
    moves = [(entry.action, entry.before, entry.after) for entry in Ledger(clone / "ledger.jsonl").entries()]
    assert moves == [("promote", None, "1"), ("promote", "1", "2"), ("rollback", "2", "1"), ("promote", "1", "2")]


def test_receipt_and_verdict_hold_and_nothing_is_registered_twice(clone: Path) -> None:
    receipt, registered = read_receipt(clone), (clone / "data/reports/fair_gptq/registered.json").read_bytes()
    assert read_verdict(clone).verdict == "approve"
    assert lost(clone) == []
    runs = len(Registry(clone).client.search_runs(["1"]))
    os.environ["MLFLOW_TRACKING_URI"] = ""
    again = register(clone, Path("params.yaml"))
    assert again == read_record(Registration, clone / "data/reports/fair_gptq/registration.json")
    # DVC wrote its lock once more after the old register had read it.
    assert again.model_copy(update={"lock_digest": receipt.lock_digest}) == receipt
    assert (clone / "data/reports/fair_gptq/registered.json").read_bytes() == registered
    assert len(Registry(clone).client.search_runs(["1"])) == runs


def test_a_forged_line_of_the_old_ledger_is_found(clone: Path) -> None:
    path = clone / "ledger.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), "actor": "nobody"}, sort_keys=True), *rest]) + "\n")
    assert main(["verify"]) == 1
