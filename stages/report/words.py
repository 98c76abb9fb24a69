"""Words and numbers that page and card share."""

from __future__ import annotations

import re

from fairgate.contracts.records import Outcome, Training, Verdict
from fairgate.metrics.comparison import Interval
from stages.report.data import Report
from stages.report.figures import number_text
from stages.report.results import TITLES

# Terms of the loss of learned rounding.
TERMS = {
    "divergence": "from the unquantized model on general text, nats a token",
    "features": "squared distance of the hidden states from the unquantized model's, over theirs squared",
    "parity": "4 (share of stereotypes − 1/2)² over the groups",
    "anchor": "squared change of the log-likelihoods",
    "spread": "squared preference within the pairs",
}
WORDS = {Verdict.approve: "Approved", Verdict.reject: "Rejected", Verdict.inconclusive: "Inconclusive"}


def base_name(report: Report) -> str:
    """The base model as a hub id where its source names one, else its own name."""
    origin = report.source.get("origin") or {}
    stated = re.match(r"[\w.-]+/[\w.-]+", str(report.source.get("source", "")))
    return str(origin.get("repository") or (stated and stated[0]) or report.source.get("model") or report.model)


def meaning(report: Report) -> str:
    """The verdict in one or two sentences: what was decided and what it does not say."""
    name, base = report.candidate, report.reference
    failed, left_open = (sum(c.outcome is outcome for c in report.verdict.checks) for outcome in (Outcome.failed, Outcome.open))
    match report.verdict.verdict:
        case Verdict.approve:
            return (
                f"Every check passed: on these items the data exclude that {name} is worse than {base} beyond the agreed margins. "
                "A person may now promote it. No detected harm is not proof of none."
            )
        case Verdict.reject:
            return (
                f"{count(failed, 'check')} failed: the data show that {name} is worse than {base} beyond the agreed margin. "
                "It is not registered."
            )
        case _:
            return (
                f"No check failed, but {count(left_open, 'check')} stayed open: with this many items, harm beyond the margin is "
                f"neither shown nor excluded. {name} is not registered."
            )


def checks_line(report: Report) -> str:
    """How many checks passed, failed and stayed open."""
    checks = report.verdict.checks
    passed, failed, left_open = (sum(c.outcome is o for c in checks) for o in (Outcome.passed, Outcome.failed, Outcome.open))
    return f"{count(len(checks), 'check')}: {passed} passed, {failed} failed, {left_open} open."


def learning_text(training: Training) -> str:
    """How learned rounding ended, in a sentence or two."""
    if training.stopped is None:
        return f"{training.steps:,} of {count(training.asked, 'step')} were taken."
    return (
        f"Stopped early, {training.stopped}. The weights are the last good state's, after {training.steps:,} of "
        f"{count(training.asked, 'step')}."
    )


def limits(report: Report) -> list[str]:
    """What this run cannot say, in plain sentences."""
    # A task that is not listed was run because every task was, whole.
    sizes = [f"{TITLES.get(name, name)} {n:,}{'' if report.asked.get(name) else ' (all)'}" for name, n in report.judged.items()]
    bits = report.recipe(report.candidate).settings.get("bits")
    lines = [
        "No detected harm is not proof of none: a check can only exclude harm larger than its sample size can resolve.",
        f"Items judged: {', '.join(sizes)}. These are samples unless marked (all); every interval and standard error reflects their size.",
        "Intervals cover the choice of items only. Rounding weights is itself a random perturbation; one run does not show its spread.",
        "StereoSet test shares no target term and no sentence with the calibration pairs, but it has the same form. "
        "It is held out, yet not out of distribution.",
        "The data quality of CrowS-Pairs is disputed by later work; read it beside StereoSet, never alone. "
        "Both bias sets are English and about the United States.",
        "Both bias sets measure which of two sentences is likelier. They say little about what the model does in a conversation.",
    ]
    partial = [f"{name} ({text})" for name, text in partial_sets(report)]
    if partial:
        lines.append(f"Partial sets: {', '.join(partial)}. Their values do not compare with published ones on the whole sets.")
    skipped = report.recipe(report.candidate).environment.skipped
    if skipped:
        lines.append(f"Not measured: {', '.join(f'{name} ({reason})' for name, reason in sorted(skipped.items()))}.")
    quantization = report.recipe(report.candidate).quantization
    if quantization and quantization.training and quantization.training.stopped:
        lines.append(f"Learned rounding did not end as asked. {learning_text(quantization.training)}")
    if report.source.get("converted"):
        lines.append(
            "The base model was itself stored in few bits and converted back, so its weights already lie on a coarse grid"
            + (f"; going to {bits} bits may cost less here than it would from the original 16-bit weights." if bits else ".")
        )
    few = [f"{c.name} (n = {c.n}, minimum {c.n_minimum})" for c in report.verdict.checks if c.n < c.n_minimum]
    if few:
        lines.append(f"Below the policy's minimum, therefore open whatever they show: {', '.join(few)}.")
    return lines


def partial_sets(report: Report) -> list[tuple[str, str]]:
    """Sets of which an origin holds fewer records than there are: (name, "1,500 of 1,838")."""
    return [
        (name, f"{s.get('records', 0):,} of {s.get('complete', 0):,}") for name, s in sorted(report.sources.items()) if s.get("partial")
    ]


def estimate_text(estimate: Interval | None, digits: int, *, signed: bool = False) -> str:
    """Value and interval, as in 51.2 [49.0, 53.4]; a dash for None."""
    if estimate is None:
        return "–"
    text = number_text(estimate.value, digits, signed=signed)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{number_text(estimate.low, digits)}, {number_text(estimate.high, digits)}]"


def figure_text(value: float | None, signed: bool = False) -> str:
    """A number of unknown size, with about four significant figures; a dash for None."""
    if value is None:
        return "–"
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e6):
        return f"{value:+.2e}".replace("-", "−") if signed else f"{value:.2e}".replace("-", "−")
    return number_text(value, 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3, signed=signed)


def count(number: int, noun: str) -> str:
    """A number with its noun, plural where it belongs: 1 check, 3 checks."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
