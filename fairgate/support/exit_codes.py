"""The exit codes of every command: `fairgate`, `python -m flows.*` and `python -m stages.*`."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended; `meaning` is one line for the terminal."""

    done = 0
    negative = 1
    wrong_use = 2
    inconclusive = 3
    bug = 4
    interrupted = 130

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.done: "done or approved",
    ExitCode.negative: "a negative answer: rejected, refused, or faults found",
    ExitCode.wrong_use: "wrong use or input: the message says what to correct",
    ExitCode.inconclusive: "inconclusive: the data decide neither way",
    ExitCode.bug: "a bug in fairgate: the message says where the traceback is",
    ExitCode.interrupted: "interrupted by Ctrl-C or SIGTERM",
}

# The gate's verdicts, by the values of `fairgate.contracts.records.Verdict`, which this layer may
# not import.
_VERDICTS = {"approve": ExitCode.done, "reject": ExitCode.negative, "inconclusive": ExitCode.inconclusive}


def exit_code_of(verdict: str) -> ExitCode:
    """The exit code of a command whose answer is this verdict."""
    return _VERDICTS[verdict]
