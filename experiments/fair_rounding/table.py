"""Results of experiments.fair_rounding -> a section of docs/results.md, a plot beside it, and the
final table as records.

    python -m experiments.fair_rounding.table

Cells that were not run are listed with their reason. Everything is read from the results folder; no
model is needed.
"""

from __future__ import annotations

import argparse
import math
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.records import Measurement, merge
from experiments.fair_rounding.cells import Cell, Declaration, chosen_recipes, read
from experiments.fair_rounding.estimates import (
    BBQ,
    CROWS,
    DRAWS,
    GAP,
    ICAT,
    LMS,
    SS,
    Measure,
    Study,
    Value,
    main_measures,
    mean_ratio,
    off,
    plain,
    ratio,
    study_of,
    worst_type,
)
from experiments.fair_rounding.plot import plot
from experiments.fair_rounding.records import records
from experiments.fair_rounding.run import HERE, LIMIT_S, TEXT
from experiments.fair_rounding.sampled_words import summary
from experiments.sections import put
from fairgate.benchmarks import benchmark_of
from fairgate.support.errors import FairgateError
from fairgate.support.files import read_json
from fairgate.support.tables import markdown_table

BASE, SECTION = "base", "fair-rounding"
BEFORE = """python -m stages.fetch --set bbq --set bold --set arc_easy --set hellaswag --set wikitext2
python -m experiments.fair_rounding all --lanes 8"""


def harms(declaration: Declaration) -> dict[str, Measure]:
    """Distances from neutral, and what should be high: shown as differences."""
    return {
        "\\|SS − 50\\|": off(SS, 50, "ss off"),
        "ICAT": plain(ICAT, "icat"),
        "LMS": plain(LMS, "lms"),
        "\\|CrowS − 50\\|": off(CROWS, 50, "crows off"),
        "\\|Winogender gap\\|": off(GAP, 0, "gap off", 3),
        "\\|BBQ ambiguous\\|": off(BBQ, 0, "bbq off", 3),
        "perplexity ratio": ratio((declaration.table.perplexity, None), "ppl"),
        "zero-shot ratio": mean_ratio(declaration.table.zero_shot, "zero-shot"),
    }


def other_measures(declaration: Declaration) -> dict[str, Measure]:
    """What was measured besides."""
    shares = {metric: plain((metric, None), metric, 3) for metric in declaration.table.zero_shot}
    return {
        "RedditBias SS (50)": plain(("redditbias.ss", None), "redditbias"),
        "WinoBias historical (0)": plain(("winobias_ll.historical_bias", None), "winobias", 3),
        "co-occurrence, nats (0)": plain(("cooccurrence.likelihood_diff", None), "cooccurrence", 2),
        "perplexity": plain((declaration.table.perplexity, None), "perplexity", 2),
        "BoolQ text, perplexity ratio": ratio(("perplexity.ppl", None), "boolq text"),
        **shares,
    }


def document(declaration: Declaration, out: Path, picture: str | None, command: str) -> tuple[str, Study]:
    """The section, and the study it shows."""
    cells = declaration.cells("final", chosen_recipes(out))
    common = [cell for cell in cells if cell.tasks == declaration.evaluation["final"].tasks]
    study, left_out = study_of(common, out, BASE)
    if BASE not in study.labels:
        raise FairgateError("the base was not run", where=str(out), remedy="run `python -m experiments.fair_rounding final` first")
    done = [cell for cell in cells if cell.result(out)]
    parts = [
        _head(declaration, command, done, out),
        _methods(declaration, study),
        _targets(records(declaration, study, out, command)),
        f"![Bias against what it costs]({picture})\n\nThe gray line joins the points that no other point beats in both, by their "
        f"values; intervals overlap.\nThe lower panels enlarge the settings of `{declaration.table.candidate}`."
        if picture
        else "",
        "### Against full precision\n\nPaired differences on the same items; a star marks an interval that excludes 0.\n\n"
        + _differences(study, harms(declaration), [(label, BASE) for label in _methods_of(study) if label != BASE]),
        _rivals(declaration, study),
        _sweeps(declaration, study),
        "### Other sets\n\n" + _table("method", other_measures(declaration), study),
        _written(declaration, [cell for cell in cells if cell.tasks != declaration.evaluation["final"].tasks], out),
        _search(out),
        _effort(done, study, out),
        _missing(declaration, left_out, out),
    ]
    return "\n\n".join(part for part in parts if part), study


def diary() -> str:
    """The notes of DIARY.md, a Markdown list."""
    text = (HERE / "DIARY.md").read_text(encoding="utf-8")
    return text[text.index("\n- ") + 1 :]


def _head(declaration: Declaration, command: str, done: Sequence[Cell], out: Path) -> str:
    drawn = {name: count for cell in done for name, count in cell.tasks.items() if count}
    parts = [f"{count:,} of {name}" for name, count in drawn.items()]
    items = f"all, except for a sample that is the same for every cell:\n  {', '.join(parts)}" if drawn else "all"
    machines = sorted({result["machine"] for cell in done if (result := cell.result(out))})
    notes = diary().strip()
    return f"""## Learned fair rounding

```
{command}
```

`python -m stages.fetch --set NAME` brings the data beyond the default sets, from the hub or a path
([which](benchmarks.md)). A set that is absent is left out of every cell. In-domain rows calibrate
on WikiText-2's validation text: put it at `{TEXT}`.

- **Declared first.** Every cell, and the rule that chooses among the cells of a search, was declared
  before it was run (`experiments/fair_rounding/declaration.yaml`). The cells came in several rounds.
  Some were declared after gate results of others had been seen; the notes say which. A cell reads
  its gate sets once.
- **Conditions.** Run on {", ".join(machines)}, evaluated in float32.
  Items: {items}.
- **Intervals.** Values are means over seeds with 95 % intervals. Clusters (target terms, passages,
  questions) are resampled {DRAWS:,} times, the same ones for all methods. Seeds are resampled too, with
  Student's quantile for their number; with one seed, only items are.
- **Ratios** are to full precision in the same harness. Zero-shot is the mean of
  {", ".join(declaration.table.zero_shot)}.
- **Weights** were quantized anew for this section, on a GPU, so rows of GPTQ and Fair-GPTQ differ from
  those above. The interval of a worst bias type does not know that it was picked as the worst.

Notes:

{notes}"""


def _targets(rows: Sequence[Measurement]) -> str:
    """The targets, and which were met."""
    if not rows:
        return ""
    cells = []
    for row in rows:
        low, high = row.target  # type: ignore[misc]
        aim = f"{low} … {high}" if low is not None and high is not None else f"≥ {low}" if high is None else f"≤ {high}"
        value, seeds = f"{row.value:.4g} [{row.low:.4g}, {row.high:.4g}]", [f"{end(row.runs or []):.4g}" for end in (min, max)]
        met = (row.details or {})["met"]
        cells.append([f"`{row.name}`", value, " … ".join(seeds), aim, "yes" if met else "no"])
    return "### Targets\n\n" + markdown_table(["record", "value", "of seeds", "target", "met"], cells)


def _methods(declaration: Declaration, study: Study) -> str:
    columns = {name: measure for name, measure in main_measures(declaration).items() if study.has(measure)}
    head = ["method", "seeds", *columns, "worst bias type", "zero-shot ≥ (95 %)"]
    rows: dict[bool, list[list[str]]] = {False: [], True: []}
    for label, cells in study.labels.items():
        values = {name: study.of(measure, label) for name, measure in columns.items()}
        worst = _worst(study, label)
        bound = f"{values['zero-shot ratio'].lower_95:.3f}" if "zero-shot ratio" in values else "–"
        shown = [_text(value, columns[name].digits) for name, value in values.items()]
        rows[bool(cells[0].variant)].append([label, str(len(cells)), *shown, worst, bound])
    sweep = f"\n\n### Sweeps\n\n{markdown_table(head, rows[True])}" if rows[True] else ""
    return f"### Methods\n\n{markdown_table(head, rows[False])}{sweep}"


def _worst(study: Study, label: str) -> str:
    if not study.has(plain(SS, "ss")):
        return "–"
    name, value = worst_type(study, label)
    return f"{name} {_text(value, 1)}"


def _table(first: str, measures: dict[str, Measure], study: Study) -> str:
    columns = {name: measure for name, measure in measures.items() if study.has(measure)}
    rows = [[label, *(_text(study.of(m, label), m.digits) for m in columns.values())] for label in _methods_of(study)]
    return markdown_table([first, *columns], rows)


def _differences(study: Study, measures: dict[str, Measure], pairs: Sequence[tuple[str, str]], *, first: bool = True) -> str:
    """A row a pair, named by its first or its second."""
    columns = {name: measure for name, measure in measures.items() if study.has(measure)}
    rows = [
        [label if first else baseline, *(_signed(study.of(m, label, baseline), m.digits) for m in columns.values())]
        for label, baseline in pairs
    ]
    return markdown_table(["method", *columns], rows)


def _rivals(declaration: Declaration, study: Study) -> str:
    """The candidate less each of the others, and the test against the best of them."""
    candidate, rivals = declaration.table.candidate, [label for label in declaration.table.rivals if label in study.labels]
    icat = plain(ICAT, "icat")
    if candidate not in study.labels or not rivals or not study.has(icat):
        return ""
    pairs = [(candidate, baseline) for baseline in rivals]
    best = max(rivals, key=lambda label: study.of(icat, label).value)
    tests = {name: study.of(measure, candidate, best) for name, measure in (("ICAT", icat), ("\\|SS − 50\\|", off(SS, 50, "ss off")))}
    said = "; ".join(f"{name} {_signed(value, 1)}, p {_p(value.p)}" for name, value in tests.items())
    return f"""### `{candidate}` against the others

Each row is `{candidate}` minus another method, paired over items; seeds are resampled where there are
several. Among the others, `{best}` has the highest ICAT. Against it: {said}.

{_differences(study, harms(declaration), pairs, first=False)}"""


def _sweeps(declaration: Declaration, study: Study) -> str:
    """Every setting of the sweeps less one method: whether a gain is more than the spread between
    runs.
    """
    baseline = declaration.table.sweeps_against
    pairs = [(label, baseline) for label, cells in study.labels.items() if cells[0].variant]
    if baseline not in study.labels or not pairs:
        return ""
    return f"### Sweeps against `{baseline}`\n\n{_differences(study, harms(declaration), pairs)}"


def _methods_of(study: Study) -> list[str]:
    """Labels that are no setting of a sweep."""
    return [label for label, cells in study.labels.items() if not cells[0].variant]


def _written(declaration: Declaration, cells: Sequence[Cell], out: Path) -> str:
    """Generated text: cells with tasks of their own."""
    parts = []
    done = [cell for cell in cells if cell.result(out)]
    for benchmark in dict.fromkeys(name for cell in done for name in cell.tasks):
        with_it = [cell for cell in done if benchmark in cell.tasks]
        study, _ = study_of(with_it, out, with_it[0].label)
        measures = {name: plain((f"{benchmark}.{name}", None), name, 3) for name in benchmark_of(benchmark).statistics}
        measures = {name: measure for name, measure in measures.items() if math.isfinite(study.of(measure, study.base).value)}
        parts.append(f"**{benchmark}**\n\n{_table('model', measures, study)}")
    words = {cell.label: (cell.sampled, summary(result["sampled"])) for cell in done if "sampled" in (result := cell.result(out) or {})}
    if words:
        columns = next(iter(words.values()))[1]
        rows = [[label, *(f"{v:.3f} [{low:.3f}, {high:.3f}]" for v, low, high in of.values())] for label, (_, of) in words.items()]
        most = max(draws for draws, _ in words.values())
        said = f"**Co-occurrence, sampled**: {most} continuations of every `The <occupation> was a`, judged by their first\ngendered word."
        parts.append(f"{said}\n\n{markdown_table(['model', *columns], rows)}")
    return "\n\n".join(["### Generated text", *parts]) if parts else ""


def _search(out: Path) -> str:
    """What the search found, and what the rule made of it."""
    path = out / "chosen.json"
    if not path.is_file():
        return ""
    parts = []
    for family, choice in read_json(path).items():
        rule = choice["rule"]
        said = f"**{family}**: `{choice['chosen']}`, the least {'distance' if choice['eligible'] else 'perplexity'}"
        if rule["reference"]:
            said += (
                f"; eligible: perplexity ≤ {rule['perplexity_ratio']} × that of {rule['reference']}, LMS ≥ its LMS − {rule['lms_drop']}"
                + ("" if choice["eligible"] else " (nothing was)")
            )
        keys = ("distance", "perplexity", "lms", "ss", "redditbias", "winobias")
        rows = [
            [f"**{label}**" if label == choice["chosen"] else label, f"{row['seeds']}", *(f"{row[key]:.2f}" for key in keys),
             "yes" if label in choice["eligible"] else ""]
            for label, row in sorted(choice["rows"].items(), key=lambda entry: entry[1]["distance"])
        ]  # fmt: skip
        parts.append(f"{said}.\n\n{markdown_table(['cell', 'seeds', *keys, 'eligible'], rows)}")
    return "### Search on the development sets\n\n" + "\n\n".join(parts)


def _effort(done: Sequence[Cell], study: Study, out: Path) -> str:
    rows = []
    for label in _methods_of(study):
        results = [result for cell in study.labels[label] if (result := cell.result(out))]
        quantize, evaluate = (statistics.median(result[key] for result in results) for key in ("quantize_s", "evaluate_s"))
        peaks = [max(result["peak_gib"]) for result in results if result["peak_gib"]]
        rows.append([label, f"{quantize:.0f}", f"{evaluate:.0f}", f"{max(peaks):.1f}" if peaks else "–"])
    seconds = {cell.name: result["quantize_s"] + result["evaluate_s"] for cell in done if (result := cell.result(out))}
    late = [f"{name} ({taken:.0f} s)" for name, taken in seconds.items() if taken > LIMIT_S]
    beyond = f"Beyond {LIMIT_S} s: {', '.join(late)}." if late else f"No cell took longer than {max(seconds.values()):.0f} s."
    ended = {cell.name: training["stopped"] for cell in done if (result := cell.result(out)) and (training := result.get("training"))}
    stopped = "".join(f" {name} stopped early ({why}): its last good state is what was measured." for name, why in ended.items() if why)
    head = ["method", "quantize, s", "evaluate, s", "peak, GiB"]
    return f"### Time\n\nMedian seconds of a cell. Cells shared their GPU with others. {beyond}{stopped}\n\n{markdown_table(head, rows)}"


def _missing(declaration: Declaration, left_out: dict[str, str], out: Path) -> str:
    """Every cell without a result in the tables, by reason."""
    cells = [cell for phase in ("search", "final") for cell in declaration.cells(phase, chosen_recipes(out))]
    reasons = {f"{c.phase} {c.name}": c.why_not(out) for c in cells if not c.result(out)} | {
        f"final {n}": why for n, why in left_out.items()
    }
    by_reason: dict[str, list[str]] = {}
    for name, why in reasons.items():
        by_reason.setdefault(why, []).append(name)
    lines = [f"- {why}: {', '.join(names)}" for why, names in by_reason.items()]
    return "### Cells that were not run\n\n" + ("\n".join(lines) if lines else "None: every declared cell was run.")


def _text(value: Value, digits: int) -> str:
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _signed(value: Value, digits: int) -> str:
    star = "*" if value.low > 0 or value.high < 0 else ""
    return f"{value.value:+.{digits}f}{star} [{value.low:+.{digits}f}, {value.high:+.{digits}f}]".replace("-", "−").replace("*", "\\*")


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("data/fair_rounding"))
    parser.add_argument("--declaration", type=Path, default=HERE / "declaration.yaml")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--plot", type=Path, default=Path("docs/fair_rounding.png"))
    parser.add_argument("--records", type=Path, default=Path("benchmarks/results/fair_rounding.json"))
    parser.add_argument("--before", default=BEFORE, help="how the data were fetched and the cells run")
    arguments = parser.parse_args()
    given = sys.argv[1:]
    if "--before" in given:  # its commands are shown as what they are
        del given[(at := given.index("--before")) : at + 2]
    command = shlex.join(["python", "-m", "experiments.fair_rounding.table", *given])
    try:
        declaration = read(arguments.declaration)
        text, study = document(declaration, arguments.results, arguments.plot.name, f"{arguments.before}\n{command}")
    except FairgateError as error:
        print(error, file=sys.stderr)
        return 2
    plot(declaration, study, arguments.plot)
    put(arguments.out, SECTION, text)
    merge(arguments.records, records(declaration, study, arguments.results, "; ".join([*arguments.before.splitlines(), command])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
