"""Reading what others wrote: damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.common.errors import BadRecord, FairgateError
from stages.common.files import read_jsonl
from stages.common.params import read_params


def test_lines_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n\xff\xfe\n')
    with pytest.raises(BadRecord, match=r"x.jsonl:2: not valid JSON"):
        read_jsonl(tmp_path / "x.jsonl")


@pytest.mark.parametrize("content", [b"a: [1", b"a: \xff"])
def test_a_broken_parameter_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(FairgateError, match=r"params.yaml: not valid YAML"):
        read_params(tmp_path / "params.yaml")
