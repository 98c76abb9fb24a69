"""Nobody in particular makes no run: a user without a name or a home is refused at the start."""

from __future__ import annotations

import argparse
import pwd

import pytest

from fairgate.__main__ import main
from fairgate.support.errors import FairgateError
from fairgate.support.user import require_user, user_name
from stages.register.__main__ import main as register

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user of a container: no name in the environment and no entry in the list of users."""

    def absent(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", absent)


@pytest.mark.usefixtures("stranger")
def test_a_user_without_a_name_is_told_to_set_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FairgateError, match=r"no name(.|\n)*set LOGNAME"):
        user_name()
    assert main(["verify"]) == 2 and "LOGNAME: this user has no name" in capsys.readouterr().err
    monkeypatch.setenv("USERNAME", " \t")
    with pytest.raises(FairgateError, match="no name"):
        user_name()
    monkeypatch.setenv("LOGNAME", " alice ")
    assert user_name() == "alice"


@pytest.mark.usefixtures("stranger")
def test_a_user_without_a_home_is_told_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "alice")
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(FairgateError, match=r"no home folder(.|\n)*set HOME"):
        require_user()
    with pytest.raises(FairgateError, match="no home folder"):
        register(argparse.Namespace(params="params.yaml"))  # before MLflow looks for it
    monkeypatch.setenv("HOME", "/")
    require_user()
