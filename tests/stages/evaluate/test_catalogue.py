from __future__ import annotations

import logging
from pathlib import Path

import pytest
from lm_eval import utils as lm_eval_utils

from fairgate.support.errors import FairgateError
from stages.evaluate.catalogue import Catalogue


def test_lm_eval_is_left_as_it_was(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("lm_eval"), "level", logging.INFO)
    compiler = lm_eval_utils.env.from_string
    catalogue = Catalogue(work / "raw", work / "split.json", work / "tasks")
    assert catalogue.load("piqa").items
    with pytest.raises(FairgateError):
        Catalogue(tmp_path, work / "split.json", work / "tasks").load("piqa")
    assert lm_eval_utils.env.from_string == compiler
    assert logging.getLogger("lm_eval").level == logging.INFO
