"""The console script: what it imports, and how it answers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fairgate.__main__ import COMMANDS, main
from tests.pipeline import environment

HEAVY = ("torch", "transformers", "mlflow", "dvc", "prefect", "pyarrow", "pydantic")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom fairgate.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name}  " in said and command.help in said
    for start in ("  0  ", "  1  ", "  2  ", "  3  ", "  4  ", "  130  "):
        assert f"\n{start}" in said


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: fairgate {name} [-h]")


def test_unknown_command_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["relaese"])
    assert end.value.code == 2
    assert "choose from" in capsys.readouterr().err
