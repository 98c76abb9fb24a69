from __future__ import annotations

from pathlib import Path

import pytest

from fairgate.contracts.contributions import Contribution, read_contributions, require_additive, rolled_up, write_contributions
from fairgate.support.errors import BadRecord, MissingFile


def _rows() -> list[Contribution]:
    """Two blocks of two matrix types; every module has one listed channel a side, and the rest."""
    rows = []
    for block in (0, 1):
        for at, kind in enumerate(("q_proj", "o_proj")):
            name, F = f"layers.{block}.{kind}", 0.1 * (1 + block) + 1 / 3 * at
            rows.append(_row("module", block, kind, name, None, F))
            for level in ("input", "output"):
                rows += [_row(level, block, kind, name, 7, 1.5 * F), _row(level, block, kind, name, None, F - 1.5 * F)]
    return rolled_up(rows)


def _row(level: str, block: int, kind: str, module: str, channel: int | None, F: float) -> Contribution:
    names = {"level": level, "block": block, "kind": kind, "module": module, "channel": channel}
    return Contribution.model_validate({**names, "weight": F, "target": F / 2, "quantized": F / 1.5})


def test_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    rows = _rows()
    write_contributions(tmp_path / "c.csv", rows)
    assert read_contributions(tmp_path / "c.csv") == rows
    assert [row.level for row in rows[:5]] == ["model", "kind", "kind", "block", "block"]
    assert (tmp_path / "c.csv").read_text().splitlines()[1].endswith(",")  # alpha_zero: empty, not a word


@pytest.mark.parametrize("level", ["model", "kind", "block", "module", "input", "output"])
@pytest.mark.parametrize("state", ["weight", "quantized"])
def test_sums_that_do_not_add_up_are_refused(level: str, state: str) -> None:
    rows = _rows()
    at = next(index for index, row in enumerate(rows) if row.level == level)
    rows[at] = rows[at].model_copy(update={state: getattr(rows[at], state) * 1.0001})
    with pytest.raises(BadRecord, match=f"do not add up: {state} is"):
        require_additive(rows, where="test")


def test_an_absent_channel_or_state_is_refused() -> None:
    rows = _rows()
    with pytest.raises(BadRecord, match=r"layers.0.q_proj, inputs do not add up"):
        require_additive([row for row in rows if not (row.module == "layers.0.q_proj" and row.level == "input")], where="test")
    half = [row.model_copy(update={"alpha_zero": 1.0}) if row.level == "module" else row for row in rows]
    with pytest.raises(BadRecord, match=r"alpha_zero is 1\.0"):
        require_additive(half, where="test")


def test_a_broken_table_names_line_and_field(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="dvc repro quantize"):
        read_contributions(tmp_path / "c.csv")
    write_contributions(tmp_path / "c.csv", _rows())
    text = (tmp_path / "c.csv").read_text().splitlines()
    text[2] = text[2].replace("kind", "sort", 1)
    (tmp_path / "c.csv").write_text("\n".join(text))
    with pytest.raises(BadRecord, match=r"c.csv:3: field 'level'"):
        read_contributions(tmp_path / "c.csv")
