from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fairgate.support.errors import FairgateError
from fairgate.support.sqlite import require_sqlite


@pytest.mark.parametrize("name", ["mlflow.db", "ü #%20?.db"])
def test_a_database_or_a_place_for_one_is_enough(tmp_path: Path, name: str) -> None:
    require_sqlite(tmp_path / name, remedy="")
    assert not (tmp_path / name).exists()
    (tmp_path / name).touch()
    require_sqlite(tmp_path / name, remedy="")
    sqlite3.connect(tmp_path / name).execute("CREATE TABLE t (x)")
    require_sqlite(tmp_path / name, remedy="")


def test_what_cannot_be_a_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database " * 100)
    for fault in ("text.db", "text.db/below.db", "no folder/mlflow.db", "."):
        with pytest.raises(FairgateError, match="database"):
            require_sqlite(tmp_path / fault, remedy="move it away")
