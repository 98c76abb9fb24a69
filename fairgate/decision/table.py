"""The verdict as a table: columns for a terminal, Markdown for the registry and the release."""

from __future__ import annotations

from fairgate.contracts.records import Line, VerdictRecord
from fairgate.support.tables import markdown_table

_COLUMNS = (
    "check",
    "group",
    "candidate",
    "reference",
    "harm",
    "low",
    "high",
    "margin",
    "outcome",
    "n",
    "n needed",
    "detectable",
)
_TEXT_COLUMNS = 2  # the first two are words, aligned to the left


def terminal(record: VerdictRecord) -> str:
    """One row per check and group in aligned columns, then the verdict and its reasons."""
    rows = [_COLUMNS, *(_terminal_row(check) for check in record.checks)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    rule = tuple("-" * width for width in widths)
    lines = [_aligned(row, widths) for row in (rows[0], rule, *rows[1:])]
    notes = [
        f"harm > 0: worse than {record.reference}; bounds one-sided at {record.confidence:.0%}, {record.draws:,} paired draws",
        "n: independent units; detectable: smallest margin a harmless candidate meets with 80 % power",
        "",
        f"verdict on {record.candidate}: {record.verdict}",
    ]
    return "\n".join([*lines, *notes, *(f"  - {reason}" for reason in record.reasons)])


def markdown(record: VerdictRecord, *, explained: bool = False) -> str:
    """The reasons as a list, then one row per check and group.

    Args:
        record: The verdict.
        explained: Whether a last column gives the policy's reason for each check. The registry
            limits the length of a description, so it goes without.
    """
    lines = [f"- {reason}" for reason in record.reasons]
    if record.checks:
        head = ["check", "group", "outcome", "harm", "bounds", "margin", "n"]
        rows = [_markdown_row(check) for check in record.checks]
        if explained:
            head.append("why")
            rows = [[*row, check.reason] for row, check in zip(rows, record.checks, strict=True)]
        lines += ["", markdown_table(head, rows)]
    return "\n".join(lines)


def _markdown_row(check: Line) -> list[object]:
    harm, low, high, margin = (_number(value, missing="-") for value in (check.harm, check.low, check.high, check.margin))
    group = check.group or "all"
    return [check.name, group, check.outcome, harm, f"[{low}, {high}]", margin, check.n]


def _terminal_row(check: Line) -> tuple[str, ...]:
    numbers = (
        check.candidate,
        check.reference,
        check.harm,
        check.low,
        check.high,
        check.margin,
    )
    return (
        check.name,
        check.group or "",
        *(_number(value) for value in numbers),
        str(check.outcome),
        f"{check.n:,}",
        "" if check.n_needed is None else f"{check.n_needed:,}",
        _number(check.detectable),
    )


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    words = map(str.ljust, row[:_TEXT_COLUMNS], widths[:_TEXT_COLUMNS])
    numbers = map(str.rjust, row[_TEXT_COLUMNS:], widths[_TEXT_COLUMNS:])
    return "  ".join([*words, *numbers])


def _number(value: float | None, missing: str = "") -> str:
    return missing if value is None else f"{value:.4g}"
