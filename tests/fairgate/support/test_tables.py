from __future__ import annotations

import doctest

from fairgate.support import tables
from fairgate.support.tables import markdown_table


def test_the_example_of_the_docstring_is_true() -> None:
    assert doctest.testmod(tables).failed == 0


def test_a_cell_can_neither_end_its_row_nor_open_a_column() -> None:
    text = markdown_table(["a"], [["x | y"], ["first\nsecond"], ["done \\| twice"]])
    assert text.splitlines()[2:] == ["| x \\| y |", "| first second |", "| done \\| twice |"]
