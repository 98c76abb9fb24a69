"""A safetensors file that is cut short is named before any weight is read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fairgate.support.errors import BadRecord
from fairgate.support.weights import require_whole_weights


def test_a_file_that_is_cut_short_is_named_by_its_path_or_its_model(tmp_path: Path) -> None:
    whole, cut = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for path in (whole, cut):
        save_file({"W": np.zeros((4, 4), dtype=np.float32)}, path)
    require_whole_weights([whole, cut], remedy="copy it again")
    os.truncate(cut, 100)
    with pytest.raises(BadRecord, match="not a whole safetensors file") as caught:
        require_whole_weights([whole, cut], remedy="copy it again")
    assert caught.value.where == str(cut) and caught.value.remedy == "copy it again"
    with pytest.raises(BadRecord) as caught:
        require_whole_weights([whole, cut], remedy="copy it again", model="owner/name")
    assert caught.value.where == "owner/name/b.safetensors"
