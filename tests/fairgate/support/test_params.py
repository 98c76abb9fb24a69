"""Reading parameters: damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.support.errors import FairgateError
from fairgate.support.params import read_params


@pytest.mark.parametrize("content", [b"a: [1", b"a: \xff"])
def test_a_broken_parameter_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(FairgateError, match=r"params.yaml: not valid YAML"):
        read_params(tmp_path / "params.yaml")
