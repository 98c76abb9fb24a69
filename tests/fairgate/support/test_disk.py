"""Space is asked for before anything large is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.support.disk import require_space
from fairgate.support.errors import FairgateError


def test_too_little_space_is_named_with_its_place_and_a_folder_may_not_exist_yet(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there" / "yet", 1, what="a model")
    with pytest.raises(FairgateError, match="no disk space for a model: 1,099,511,627,776 MiB needed") as caught:
        require_space(tmp_path / "not" / "there" / "yet", 2**60, what="a model")
    assert caught.value.where == str(tmp_path)
