"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""A pipe table without a final newline.

    A cell is one line, and its pipes are escaped (an escaped pipe stays as it is).

    >>> print(markdown_table(["model", "SS"], [["base", 60.4], ["a|b", None]]))
    | model | SS |
    |---|---|
    | base | 60.4 |
    | a\|b | |
    """
    lines = [_line(head), "|---" * len(head) + "|"]
    return "\n".join([*lines, *(_line(row) for row in rows)])


def _line(cells: Sequence[object]) -> str:
    texts = [_cell(cell) for cell in cells]
    return "|" + "".join(f" {text} |" if text else " |" for text in texts)


def _cell(value: object) -> str:
    text = "" if value is None else " ".join(str(value).split("\n"))
    return text.replace("\\|", "|").replace("|", "\\|")
