"""One verdict, two tables: what a terminal shows and what the registry and the release keep."""

from __future__ import annotations

from fairgate.decision.table import markdown, terminal
from tests.fake_run import verdict_record

RECORD = verdict_record("fair_gptq", "inconclusive")


def test_a_terminal_row_has_every_number_under_its_column() -> None:
    lines = terminal(RECORD).splitlines()
    column = lines[0].index("n needed")
    last = next(line for line in lines if line.startswith("bias.crows_pairs.age"))
    assert last[column : column + len("n needed")].strip() == "940"
    assert len({len(line) for line in lines[: 2 + len(RECORD.checks)]}) == 1
    assert lines[-1] == f"  - {RECORD.reasons[0]}"


def test_markdown_gives_reasons_then_bounds_and_says_why_only_where_asked() -> None:
    reason, gap, head, rule, *rows = markdown(RECORD).splitlines()
    assert reason == f"- {RECORD.reasons[0]}" and gap == ""
    assert head == "| check | group | outcome | harm | bounds | margin | n |"
    assert rule.count("---") == 7 and len(rows) == len(RECORD.checks)
    assert rows[-1] == "| bias.crows_pairs.age | age | open | 1 | [-4.2, 6.4] | 2 | 15 |"
    assert markdown(RECORD, explained=True).endswith("| 15 | the interval holds the margin |")


def test_a_verdict_without_checks_has_no_table() -> None:
    assert markdown(RECORD.model_copy(update={"checks": []})) == f"- {RECORD.reasons[0]}"
