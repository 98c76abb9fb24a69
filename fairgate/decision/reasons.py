"""The verdict in sentences. They are kept in verdict.json and in the registry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fairgate.contracts.records import Line, Outcome, Verdict
from fairgate.decision.rules import RULES


def reasons(verdict: Verdict, lines: Sequence[Line], confidence: float) -> list[str]:
    """One sentence per failed line and one per check with open lines, or what approval rests on."""
    if verdict is Verdict.approve:
        # The column is that of the gate's table in the terminal and of the report's page.
        return [
            f"All {len(lines)} lines exclude harm beyond their margin, each at {confidence:.0%} confidence.",
            "No detected harm is not proof of none: the column 'detectable' says what each line could have shown.",
        ]
    failures = [_failure(line) for line in lines if line.outcome is Outcome.failed]
    open_lines: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line.outcome is Outcome.open:
            open_lines[line.name].append(line)
    return failures + [_open(name, lines_of_check) for name, lines_of_check in open_lines.items()]


def _failure(line: Line) -> str:
    where = f"{line.metric} in group {line.group}" if line.group else line.metric
    bounds = f" (at least {line.low:.3g})" if line.low != line.high else ""
    sentence = RULES[line.rule].sentence
    return f"{line.name} failed: for {where} {sentence} {line.harm:.3g}{bounds}; the margin is {line.margin:g}."


def _open(name: str, lines: Sequence[Line]) -> str:
    return f"{name} is undecided: {'; '.join(_why_open(line) for line in lines)}."


def _why_open(line: Line) -> str:
    units, bounds, needed = f"n = {line.n}", "", ""
    if line.n < line.n_minimum:
        units += f", below the minimum of {line.n_minimum}"
    if line.low is not None and line.high is not None:
        bounds = f", harm {line.low:.3g} to {line.high:.3g} around the margin {line.margin:g}"
    if line.floor is not None and line.margin < line.floor:
        needed = f"; the stack by itself changes {line.floor:.3g}, so this margin cannot be judged"
    elif line.n_needed is not None:
        needed = f", about {line.n_needed:,} needed"
    return f"{line.group or 'overall'} ({units}{bounds}{needed})"
