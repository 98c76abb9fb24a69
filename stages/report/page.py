"""The static page: one HTML file, styles and figures inside, no request to anywhere."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fairgate.contracts.recipes import is_unquantized
from fairgate.contracts.records import Outcome, Status
from fairgate.metrics.comparison import Interval
from stages.report import figures, panels
from stages.report.data import EvaluatedRecipe, Report
from stages.report.figures import number_text
from stages.report.results import ABILITY, BIAS, PERPLEXITY, SUMMARY
from stages.report.templates import fill
from stages.report.weights import weights
from stages.report.words import (
    TERMS,
    WORDS,
    base_name,
    checks_line,
    count,
    estimate_text,
    learning_text,
    limits,
    meaning,
    partial_sets,
)

_SIGNS = {Outcome.passed: "✓", Outcome.failed: "✕", Outcome.open: "?"}
_SHOWN = ("method", "bits", "group_size", "symmetric", "mode", "alpha")


def render(report: Report) -> str:
    """The page as HTML; equal reports give equal text."""
    values: dict[str, Any] = {
        "run": report,
        "verdict": report.verdict,
        "names": report.names,
        "icons": {name: figures.icon(report.series(name)) for name in report.names},
        "base_name": base_name(report),
        "level": f"{100 * report.confidence:g} %",
    }
    # One function per section of the template, in its order.
    for section in (
        _header,
        _compared,
        _results,
        _checks,
        _bias_and_flips,
        _beyond_the_headline,
        _ability_and_health,
        _learning_and_weights,
        _data,
        _limits,
    ):
        values |= section(report)
    return fill("page.html.j2", values)


def _header(report: Report) -> dict[str, Any]:
    return {
        "word": WORDS[report.verdict.verdict],
        "meaning": meaning(report),
        "facts": _facts(report),
    }


def _compared(report: Report) -> dict[str, Any]:
    source = str(report.source.get("source") or report.source.get("attribution") or "")
    return {
        "base_note": source.removeprefix(base_name(report)).strip(),
        "digests": _digests(report),
        "recipes": [_recipe_row(report, recipe) for recipe in report.recipes],
    }


def _results(report: Report) -> dict[str, Any]:
    return {
        "summary": _summary(report),
        "versus": _versus(report),
        "tradeoff": panels.tradeoff(report),
    }


def _checks(report: Report) -> dict[str, Any]:
    lines = report.verdict.checks
    return {
        "checks_line": checks_line(report),
        "checks": [(line, _SIGNS[line.outcome], panels.bullet(line)) for line in lines],
    }


def _bias_and_flips(report: Report) -> dict[str, Any]:
    shown = (panels.bias(report, metric.key) for metric in BIAS)
    runs = report.noise.runs if report.noise else ()
    return {
        "bias": [panel for panel in shown if panel],
        "flips": report.flips,
        "flip_panels": panels.flips(report),
        "items": report.items,
        "floors": report.noise.floors if report.noise else {},
        "noise_runs": " against ".join(f"{r.dtype} in batches of {r.batch_tokens:,} tokens" for r in runs),
    }


def _beyond_the_headline(report: Report) -> dict[str, Any]:
    return {
        "guards": [row for row in report.rows if row.kind != "further"],
        "further": [row for row in report.rows if row.kind == "further"],
    }


def _ability_and_health(report: Report) -> dict[str, Any]:
    candidate = report.recipe(report.candidate)
    return {
        "ability_panels": panels.ability(report),
        "statuses": [status.value for status in Status],
        "health": [_health(recipe) for recipe in report.recipes if recipe.quantization],
        "notes": candidate.quantization.notes if candidate.quantization else [],
        "heat": panels.health(candidate),
        "modules": candidate.quantization.modules if candidate.quantization else [],
    }


def _learning_and_weights(report: Report) -> dict[str, Any]:
    candidate, terms = report.recipe(report.candidate), _terms(report)
    learned = [r for r in report.recipes if r.quantization and r.quantization.training]
    return {
        "terms": terms,
        "learned": [_learned(recipe, terms) for recipe in learned],
        "learning_panels": panels.learning(report, candidate),
        "weights": weights(candidate.contributions),
    }


def _data(report: Report) -> dict[str, Any]:
    dropped = sorted(report.split.dropped.items())
    return {
        "sets": _sets(report),
        "split": report.split,
        "reserved": _reserved(report),
        "overlaps": _overlaps(report),
        "dropped": [(where, count(len(ids), "item")) for where, ids in dropped if ids],
    }


def _limits(report: Report) -> dict[str, Any]:
    environment = report.recipe(report.candidate).environment
    return {
        "limits": limits(report),
        "power": report.power,
        "environment": _flat(environment.model_dump(mode="json", exclude={"schema_"})),
    }


def timing_script(rows: list[dict[str, Any]]) -> str:
    """`timing.js`: fills the hidden table of the page; an empty list leaves it hidden."""
    sizes = (("seconds", 1), ("peak_rss_gib", 2), ("peak_gpu_gib", 2))
    texts = [
        [
            str(row.get("name", "")),
            *(_fixed(row.get(key), digits) for key, digits in sizes),
            ", ".join(f"{key} {value}" for key, value in sorted((row.get("host") or {}).items())),
            str(row.get("date", "")),
        ]
        for row in rows
    ]
    return fill("timing.js.j2", {"rows": json.dumps(texts, indent=1)})


def _fixed(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _facts(report: Report) -> list[tuple[str, str, str]]:
    """Headline numbers: (name, value, note)."""
    checks = report.verdict.checks
    passed = sum(check.outcome is Outcome.passed for check in checks)
    facts = [("Checks passed", f"{passed} of {len(checks)}", checks_line(report).split(": ", 1)[1].rstrip("."))]
    for metric in (BIAS[0], BIAS[1], ABILITY[1], PERPLEXITY):
        result = report.result(metric.key)
        if result:
            values = [number_text(result.levels[name].value, metric.digits) for name in (report.reference, report.candidate)]
            change = estimate_text(result.changes.get(report.candidate), metric.digits, signed=True)
            of = "distance from 50" if metric in BIAS else "change"
            facts.append((metric.name, " → ".join(values), f"{of}: {change}"))
    before, after = report.mib(report.reference), report.mib(report.candidate)
    if before and after:
        facts.append(("Weights, MiB", f"{before:,.0f} → {after:,.0f}", f"{number_text(100 * (after / before - 1), 0, signed=True)} %"))
    return facts


def _digests(report: Report) -> list[tuple[str, str]]:
    digests = [("Policy", report.verdict.policy_digest), ("Weights judged", report.verdict.weight_digest)]
    quantization = report.recipe(report.candidate).quantization
    if quantization:
        digests.append(("Base weights", quantization.base_weight_digest))
    return [*digests, ("Calibration pairs", report.split.pairs_digest), ("Calibration text", report.split.text_digest)]


def _recipe_row(report: Report, recipe: EvaluatedRecipe) -> dict[str, Any]:
    s = recipe.settings
    grid = s.get("symmetric")
    return {
        "name": recipe.name,
        "role": {report.candidate: "candidate", report.reference: "reference"}.get(recipe.name, "baseline"),
        "method": "unquantized" if is_unquantized(recipe.method) else recipe.method,
        "bits": s.get("bits", "–"),
        "group": s.get("group_size", "–"),
        "grid": "–" if grid is None else "symmetric" if grid else "asymmetric",
        "mode": s.get("mode", "–"),
        "alpha": "–" if s.get("alpha") is None else s["alpha"],
        "other": ", ".join(f"{key} {value}" for key, value in sorted(s.items()) if key not in _SHOWN and value not in (None, {})) or "–",
        "digest": recipe.quantization.weight_digest if recipe.quantization else "",
    }


def _summary(report: Report) -> list[tuple[str, str, int, list[Interval | None]]]:
    """Rows of the results: (name, ideal and n, digits, one estimate a recipe)."""
    rows = []
    for metric in SUMMARY:
        result = report.result(metric.key)
        if result:
            levels = [result.levels.get(name) for name in report.names]
            rows.append((metric.name, f"{metric.ideal}; n = {result.levels[report.reference].n:,}", metric.digits, levels))
    sizes = [None if (mib := report.mib(name)) is None else Interval(mib, None, None, 0) for name in report.names]
    return [*rows, ("Weights, MiB", "smaller is better", 1, sizes)]


def _versus(report: Report) -> list[tuple[str, int, list[Interval | None]]]:
    """The candidate against the other quantized recipes, paired.

    A row is (name, digits, one estimate for each baseline).
    """
    results = [result for metric in SUMMARY if (result := report.result(metric.key))]
    return [(result.metric.name, result.metric.digits, [result.versus.get(name) for name in report.baselines]) for result in results]


def _health(recipe: EvaluatedRecipe) -> dict[str, Any]:
    assert recipe.quantization is not None
    modules = recipe.quantization.modules
    changes = [m.weight_change for m in modules]
    return {
        "recipe": recipe.name,
        "modules": len(modules),
        "counts": [sum(m.status is status for m in modules) for status in Status],
        "debiased": sum(m.debiased for m in modules),
        "damping": max((m.damping for m in modules if m.damping is not None), default=None),
        "dead": sum(m.dead_columns for m in modules),
        "change_median": statistics.median(changes) if changes else None,
        "change_most": max(changes, default=None),
    }


def _terms(report: Report) -> list[str]:
    """Terms of the loss that some recipe's steps had."""
    trainings = [recipe.quantization.training for recipe in report.recipes if recipe.quantization and recipe.quantization.training]
    return [term for term in TERMS if any(term in row for training in trainings for row in training.history)]


def _learned(recipe: EvaluatedRecipe, terms: Sequence[str]) -> dict[str, Any]:
    """How learning went: steps, how it ended, and each term of the loss at first and at last."""
    assert recipe.quantization is not None and recipe.quantization.training is not None
    training = recipe.quantization.training
    ends = training.history[:1] + training.history[-1:]
    return {
        "recipe": recipe.name,
        "steps": training.steps,
        "asked": training.asked,
        "stopped": training.stopped,
        "text": learning_text(training),
        "terms": [[row[term] for row in ends if term in row] for term in terms],
    }


def _sets(report: Report) -> list[dict[str, str]]:
    """The sets that were fetched.

    A part of a set (`stereoset_dev.calibration`) has the source of the whole.
    """
    partial = dict(partial_sets(report))
    rows = []
    for name in sorted({*report.split.roles, *report.sources}):
        whole = name.split(".")[0]
        if whole not in report.sources:
            continue
        source, role = report.sources[whole], report.split.roles.get(name)
        records = source.get("records") if name == whole else None
        rows.append(
            {
                "name": name,
                "role": role.value if role else "no role",
                "records": f"{records:,}" if isinstance(records, int) else "part of it",
                "partial": partial.get(name, ""),
                "licence": str(source.get("licence", "–")),
                "attribution": "; ".join(str(source[key]) for key in ("attribution", "source") if source.get(key)) or "–",
            }
        )
    return rows


def _reserved(report: Report) -> list[str]:
    """Sets that have a role but were not fetched for this run."""
    return sorted(name for name in report.split.roles if name.split(".")[0] not in report.sources)


def _overlaps(report: Report) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """What calibration shares with each set.

    Columns are a part of calibration and a kind; each set has one row of counts.
    """
    overlaps = {(o.second, f"{o.kind}s of {o.first}"): o for o in report.split.overlaps}
    columns = list(dict.fromkeys(column for _, column in overlaps))
    rows = []
    for second in dict.fromkeys(second for second, _ in overlaps):
        shared = [overlaps.get((second, column)) for column in columns]
        rows.append((second, ["–" if o is None else f"{o.count:,}{' (not allowed)' if o.refused and o.count else ''}" for o in shared]))
    return columns, rows


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested keys joined by dots, lists joined by commas."""
    out: list[tuple[str, str]] = []
    for key, item in sorted(value.items()):
        if isinstance(item, Mapping):
            out += _flat(item, f"{prefix}{key}.")
        else:
            out.append((f"{prefix}{key}", ", ".join(map(str, item)) if isinstance(item, list) else str(item)))
    return out
