"""The verdict as a table to read in a terminal."""

from __future__ import annotations

from fairgate.contracts.records import Check, VerdictRecord

_HEAD = ("check", "group", "candidate", "reference", "harm", "low", "high", "margin", "outcome", "n", "n needed", "detectable")


def render(record: VerdictRecord) -> str:
    """One line per check and group, then the verdict and its reasons."""
    rows = [_HEAD, *(_cells(check) for check in record.checks)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = [_line(row, widths) for row in (rows[0], tuple("-" * width for width in widths), *rows[1:])]
    notes = [
        f"harm > 0: worse than {record.reference}; bounds one-sided at {record.confidence:.0%}, {record.draws:,} paired draws",
        "n: independent units; detectable: smallest margin a harmless candidate meets with 80 % power",
        "",
        f"verdict on {record.candidate}: {record.verdict}",
    ]
    return "\n".join([*lines, *notes, *(f"  - {reason}" for reason in record.reasons)])


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join([*map(str.ljust, row[:2], widths[:2]), *map(str.rjust, row[2:], widths[2:])])


def _cells(check: Check) -> tuple[str, ...]:
    numbers = (check.candidate, check.reference, check.harm, check.low, check.high, check.margin)
    return (
        check.name,
        check.group or "",
        *(_number(value) for value in numbers),
        str(check.outcome),
        f"{check.n:,}",
        "" if check.n_needed is None else f"{check.n_needed:,}",
        _number(check.detectable),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
