from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from mlflow.pyfunc import load_model
from mlflow.tracking import _tracking_service

from fairgate.__main__ import main
from fairgate.contracts.records import Verdict
from fairgate.support.errors import FairgateError
from flows.ledger import Ledger
from flows.promotion import Refused, promote, rollback, verify
from stages.register.evidence import BrokenBinding
from stages.register.registry import Registry
from stages.register.stage import register
from tests.mlflow_database import migrated, own_tracking, seed  # noqa: F401
from tests.project import make_project, write_verdict

pytestmark = pytest.mark.usefixtures("own_tracking")
NAME = "fairgate-tiny"
PARAMS = Path("params.yaml")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:  # noqa: F811
    """Two approved versions by `author`: the second verdict differs in one input."""
    root = seed(make_project(tmp_path_factory.mktemp("registered")), migrated)
    patch = pytest.MonkeyPatch()
    patch.setenv("LOGNAME", "author")
    for content in (b"first", b"second"):
        os.environ["MLFLOW_TRACKING_URI"] = ""
        (root / "data/evaluation/base/items.parquet").write_bytes(content)
        write_verdict(root, Verdict.approve)
        register(root, PARAMS)
    os.environ["MLFLOW_TRACKING_URI"] = ""
    patch.undo()
    return root


@pytest.fixture
def root(registered: Path, tmp_path: Path) -> Path:
    """The registry as registered. The artifacts are shared; database and ledger are the test's."""
    shutil.copy(registered / "mlflow.db", tmp_path / "mlflow.db")
    shutil.copy(registered / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


def aliases(root: Path) -> dict[str, str]:
    return {alias: version for alias, version in Registry(root).aliases(NAME).items() if alias != "candidate"}


def test_promote_rollback_and_verify_keep_aliases_and_ledger_together(root: Path) -> None:
    book = root / "ledger.jsonl"
    promote(root, book, version="1", approver="second", reason="measured")
    assert aliases(root) == {"champion": "1"} == verify(root, book)
    promote(root, book, version="2", approver="second", reason="better")
    assert aliases(root) == {"champion": "2", "previous": "1"} == verify(root, book)
    assert Registry(root).version(NAME, "2").tags["approved_by"] == "second"
    rollback(root, book, actor="third", reason="complaints")
    assert aliases(root) == {"champion": "1", "previous": "2"} == verify(root, book)
    assert [(e.action, e.before, e.after, e.actor) for e in Ledger(book).entries()] == [
        ("promote", None, "1", "second"),
        ("promote", "1", "2", "second"),
        ("rollback", "2", "1", "third"),
    ]


@pytest.mark.parametrize(
    ("version", "approver", "reason", "what"),
    [
        ("1", "Author", "fine", "cannot approve it"),
        ("1", " ", "fine", "approver is empty"),
        ("1", "second", "", "reason is empty"),
        ("1", "author\u200b", "fine", "approver has a character that cannot be printed"),
        ("1", "\uff41\uff55thor", "fine", "cannot approve it"),
        ("1", "second", "good\u0085enough", "reason is not one line"),
        ("1", "second", "good\u2028enough", "reason is not one line"),
        ("7", "second", "fine", "no version 7"),
    ],
)
def test_promotion_against_the_rules_moves_nothing(root: Path, version: str, approver: str, reason: str, what: str) -> None:
    with pytest.raises(FairgateError, match=what):
        promote(root, root / "ledger.jsonl", version=version, approver=approver, reason=reason)
    assert aliases(root) == {} and Ledger(root / "ledger.jsonl").entries() == []


@pytest.mark.parametrize("folder", ["with space", "größe 模型 e\u0301", '100% #1; "a" [b] {c} $HOME & a:b'])
def test_the_whole_road_works_in_a_folder_of_any_name(
    tmp_path: Path,
    migrated: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
) -> None:
    root, book = tmp_path / folder, tmp_path / folder / "ledger.jsonl"
    root.mkdir()
    seed(make_project(root), migrated)
    monkeypatch.setenv("LOGNAME", "author")
    monkeypatch.chdir(tmp_path)  # where a registry of MLflow's own choice would be made
    for version, content in (("1", b"first"), ("2", b"second")):
        (root / "data/evaluation/base/items.parquet").write_bytes(content)
        write_verdict(root, Verdict.approve)
        receipt = register(root, PARAMS)
        monkeypatch.setattr(_tracking_service.utils, "_tracking_uri", None)  # promote is a process of its own
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
        promote(root, book, version=version, approver="second", reason="measured")
    rollback(root, book, actor="third", reason="complaints")
    assert verify(root, book) == {"champion": "1", "previous": "2"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", receipt.tracking_uri)
    assert len(load_model(f"models:/{NAME}@champion").predict(["The pilot"])) == 1
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_artifacts_and_scratch_on_another_disk_are_found(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    migrated: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = Path("/dev/shm")  # where there is one, it is another file system
    store = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else tmp_path_factory.mktemp("disk")))
    root, link = tmp_path / "project", tmp_path / "link"
    root.mkdir()
    link.symlink_to(root)
    try:
        for name in ("mlartifacts", ".fairgate"):
            (store / name).mkdir()
            (root / name).symlink_to(store / name)
        monkeypatch.setenv("LOGNAME", "author")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        receipt = register(seed(make_project(root), migrated), PARAMS)
        promote(link, root / "ledger.jsonl", version="1", approver="second", reason="measured")
        assert Registry(link).lost(receipt) == [] and aliases(root) == {"champion": "1"}
    finally:
        shutil.rmtree(store)


def test_a_registry_of_the_environment_is_asked_by_every_call(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "mlflow.db").rename(root / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'other.db'}")
    promote(root, root / "ledger.jsonl", version="1", approver="second", reason="measured")
    assert not (root / "mlflow.db").exists()


def test_a_second_address_for_versions_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://me:secret@elsewhere:5000")
    with pytest.raises(FairgateError, match=r"second one(.|\n)*unset MLFLOW_REGISTRY_URI") as error:
        promote(root, root / "ledger.jsonl", version="1", approver="second", reason="measured")
    assert "secret" not in str(error.value)


def test_a_moved_project_is_told_with_both_folders(
    tmp_path: Path,
    migrated: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOGNAME", "author")
    here, there = tmp_path / "he re", tmp_path / "there"
    here.mkdir()
    receipt = register(seed(make_project(here), migrated), PARAMS)
    here.rename(there)
    said = f"moved from {here}(.|\n)*ln -s {there} '{here}'"
    with pytest.raises(FairgateError, match=said):
        promote(there, there / "ledger.jsonl", version="1", approver="second", reason="measured")
    with pytest.raises(FairgateError, match=said):
        Registry(there).lost(receipt)
    with pytest.raises(FairgateError, match=said):
        register(there, PARAMS)
    here.symlink_to(there)
    assert register(there, PARAMS).run_id == receipt.run_id
    promote(there, there / "ledger.jsonl", version="1", approver="second", reason="measured")


def test_lost_artifacts_are_a_loss_and_are_recorded_anew(tmp_path: Path, migrated: Path) -> None:  # noqa: F811
    seed(make_project(tmp_path), migrated)
    receipt = register(tmp_path, PARAMS)
    shutil.rmtree(tmp_path / "mlartifacts")
    assert f"run {receipt.run_id}" in Registry(tmp_path).lost(receipt)
    again = register(tmp_path, PARAMS)
    assert again.model_version == "2" and Registry(tmp_path).lost(again) == []


def test_an_author_with_blanks_around_the_name_cannot_approve(root: Path) -> None:
    registry = Registry(root)
    registry.client.set_tag(registry.version(NAME, "1").run_id, "mlflow.user", " Second ")
    with pytest.raises(Refused, match="cannot approve it"):
        promote(root, root / "ledger.jsonl", version="1", approver="second", reason="fine")


@pytest.mark.parametrize(("author", "approver"), [("Jose\u0301", "jos\u00e9"), ("ann\u200b", "ann"), ("stra\u00dfe", "STRASSE")])
def test_one_name_in_two_spellings_is_one_person(root: Path, author: str, approver: str) -> None:
    registry = Registry(root)
    registry.client.set_tag(registry.version(NAME, "1").run_id, "mlflow.user", author)
    with pytest.raises(Refused, match="cannot approve it"):
        promote(root, root / "ledger.jsonl", version="1", approver=approver, reason="fine")


@pytest.mark.parametrize("option", ["--reason", "--approver"])
def test_an_argument_that_is_no_utf8_is_refused_before_anything_moves(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.chdir(root)
    arguments = {"--version": "1", "--reason": "fine", "--approver": "second", option: "caf\udce9"}
    assert main(["promote", *(word for pair in arguments.items() for word in pair)]) == 2
    assert "is not one line of text" in capsys.readouterr().err and aliases(root) == {}


def test_a_ledger_that_is_elsewhere_is_asked_for(root: Path) -> None:
    promote(root, root / "ledger.jsonl", version="1", approver="second", reason="measured")
    with pytest.raises(Refused, match=r"elsewhere: there is no ledger here, but version 1 is the champion[\s\S]*--ledger"):
        verify(root, root / "elsewhere")
    with pytest.raises(FairgateError, match="not a file"):
        promote(root, root, version="2", approver="second", reason="better")


@pytest.mark.parametrize(("version", "name"), [("latest", None), ("1' or '1", None), ("1", "x' or name like '%"), ("1", "")])
def test_what_is_no_version_and_no_name_is_refused(root: Path, version: str, name: str | None) -> None:
    with pytest.raises(FairgateError, match=r"--version|--name"):
        promote(root, root / "ledger.jsonl", version=version, approver="second", reason="fine", name=name)


@pytest.mark.parametrize("file", ["data/reports/fair_gptq/verdict.json", "data/evaluation/base/items.parquet", "params.yaml", "weights"])
def test_recorded_artifact_that_changed_is_refused(root: Path, file: str) -> None:
    registry = Registry(root)
    version = registry.version(NAME, "1")
    run = Path(str(registry.run(version.run_id).info.artifact_uri).removeprefix("file://"))  # type: ignore[arg-type,union-attr]
    path = run / "evidence" / file
    if file == "weights":
        model = registry.client.get_model_version_download_uri(NAME, "1")
        path = Path(model.removeprefix("file://")) / "artifacts/checkpoint/model.safetensors"
    before = path.read_bytes()
    # A space at the end keeps JSON and YAML readable. In params.yaml the policy has to change.
    path.write_bytes(before.replace(b"draws: 10000", b"draws: 10001") if file == "params.yaml" else before + b" ")
    try:
        with pytest.raises((Refused, BrokenBinding)):
            promote(root, root / "ledger.jsonl", version="1", approver="second", reason="fine")
    finally:
        path.write_bytes(before)
    assert aliases(root) == {}


def test_version_is_written_down_as_the_alias_spells_it(root: Path) -> None:
    book = root / "ledger.jsonl"
    promote(root, book, version="01", approver="second", reason="measured")
    assert verify(root, book) == {"champion": "1"} and Ledger(book).entries()[-1].after == "1"
    with pytest.raises(Refused, match="already the champion"):
        promote(root, book, version="01", approver="second", reason="again")
    promote(root, book, version="2", approver="second", reason="better")


def test_weights_that_another_verdict_rejected_since_are_refused(registered: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(registered, tmp_path / "project"))
    book = root / "ledger.jsonl"

    def judged(verdict: Verdict) -> None:
        write_verdict(root, verdict)
        register(root, PARAMS)
        os.environ["MLFLOW_TRACKING_URI"] = ""

    judged(Verdict.reject)
    for version in ("1", "2"):
        with pytest.raises(Refused, match="newest verdict on these weights is reject"):
            promote(root, book, version=version, approver="second", reason="fine")
    judged(Verdict.approve)
    promote(root, book, version="3", approver="second", reason="judged again")
    judged(Verdict.reject)  # the very verdict of before: what was said last counts
    with pytest.raises(Refused, match="newest verdict on these weights is reject"):
        promote(root, book, version="2", approver="second", reason="fine")


def test_ledger_of_a_lost_registry_says_the_way_out(registered: Path, root: Path) -> None:
    book = root / "ledger.jsonl"
    promote(root, book, version="2", approver="second", reason="measured")
    shutil.copy(registered / "mlflow.db", root / "mlflow.db")
    Registry(root).client.delete_model_version(NAME, "2")
    with pytest.raises(Refused, match=f"at version 2, which is not in the registry(.|\n)*archive {book}"):
        promote(root, book, version="1", approver="second", reason="all there is")
    book.rename(root / "former.jsonl")
    promote(root, book, version="1", approver="second", reason="all there is")
    assert verify(root, book) == {"champion": "1"}


def test_forged_tag_is_refused(root: Path) -> None:
    Registry(root).tag_version(NAME, "1", {"model.sha": "0" * 64})
    with pytest.raises(Refused, match=r"tag 'model\.sha'"):
        promote(root, root / "ledger.jsonl", version="1", approver="second", reason="fine")


def test_alias_moved_past_the_ledger_is_reported_and_blocks_promotion(root: Path) -> None:
    book = root / "ledger.jsonl"
    promote(root, book, version="1", approver="second", reason="measured")
    Registry(root).move_alias(NAME, "champion", "2")
    with pytest.raises(Refused, match="moved past the ledger"):
        verify(root, book)
    with pytest.raises(Refused, match="moved past the ledger"):
        promote(root, book, version="2", approver="second", reason="better")


def test_entry_that_cannot_be_written_leaves_the_aliases_as_they_were(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(root, root / "ledger.jsonl", version="1", approver="second", reason="measured")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flows.ledger.os.fsync", full)
    with pytest.raises(OSError):
        promote(root, root / "ledger.jsonl", version="2", approver="second", reason="better")
    assert aliases(root) == {"champion": "1"} == verify(root, root / "ledger.jsonl")


def test_no_former_champion_means_no_rollback(root: Path) -> None:
    with pytest.raises(Refused, match="no former champion"):
        rollback(root, root / "ledger.jsonl", actor="third", reason="complaints")


def test_commands_exit_by_their_answer(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(root)
    promotion = ["promote", "--version", "1", "--reason", "measured", "--approver"]
    assert main([*promotion, "author"]) == 1 and "made this version" in capsys.readouterr().err
    assert main([*promotion, " "]) == 2 and "give --approver" in capsys.readouterr().err
    assert main([*promotion, "second"]) == 0 and "champion is version 1 (was none)" in capsys.readouterr().out
    assert main(["verify"]) == 0 and capsys.readouterr().out == f"{NAME}: champion = version 1\n"
    Registry(root).move_alias(NAME, "champion", "2")
    assert main(["verify"]) == 1 and "moved past the ledger" in capsys.readouterr().err
    Registry(root).move_alias(NAME, "champion", "1")
    (root / "ledger.jsonl").write_text((root / "ledger.jsonl").read_text().replace("second", "third"))
    assert main(["verify"]) == 1 and "changed after it was written" in capsys.readouterr().err
    (root / "params.yaml").write_text("model: 5\n")
    assert main(["verify"]) == 2 and "params.yaml:model: the model's name is not a text" in capsys.readouterr().err
    (root / "params.yaml").unlink()
    assert main(["verify"]) == 2 and "no parameter file" in capsys.readouterr().err
