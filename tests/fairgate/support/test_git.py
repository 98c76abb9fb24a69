"""The commit of the project is recorded, whatever repository the environment names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fairgate.support.git import forget_repository, head_commit


def repository(folder: Path, *files: str) -> str:
    """A new repository with one commit; returns the commit."""
    folder.mkdir(parents=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=folder, env=clean, capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init", "-q")
    for file in files:
        (folder / file).write_text(folder.name)
        git("add", file)
    git("commit", "-q", "--allow-empty", "-m", "one")
    return git("rev-parse", "HEAD")


@pytest.mark.parametrize(
    "variable", ["GIT_DIR", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_WORK_TREE"]
)
def test_a_variable_of_a_hook_does_not_change_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    commit = repository(tmp_path / "project", "params.yaml")
    other = repository(tmp_path / "other", "params.yaml")
    monkeypatch.setenv(variable, str(tmp_path / "other/.git"))
    assert head_commit(tmp_path / "project", "params.yaml") == commit != other
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -v")
    forget_repository()
    assert variable not in os.environ and os.environ["GIT_SSH_COMMAND"] == "ssh -v"


def test_a_project_that_only_lies_inside_a_repository_has_no_commit(tmp_path: Path) -> None:
    outer = repository(tmp_path / "home", "params.yaml")
    inner = tmp_path / "home/unpacked"
    inner.mkdir()
    (inner / "params.yaml").write_text("model: tiny\n")
    assert head_commit(inner, "params.yaml") is None
    assert head_commit(tmp_path / "home", "params.yaml") == outer
    assert head_commit(tmp_path, "params.yaml") is None
