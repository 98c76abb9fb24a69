"""Evaluation folders -> the Markdown tables of docs/results.md.

    python -m experiments.results_table data/evaluation/base data/evaluation/rtn \\
        data/evaluation/gptq data/evaluation/fair_gptq --out docs/results.md

The first folder is the reference; the others are compared with it. The script reads items.parquet
and environment.json of each folder, and noise.json of the first one if it is there. Every metric of
every benchmark is a row. Sections that other scripts own in the document stay as they are
(sections.py).
"""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experiments.sections import kept
from fairgate.benchmarks import BENCHMARKS, SMOKE, benchmark_of, items_of
from fairgate.benchmarks.descriptions import descriptions
from fairgate.contracts.item_table import read_items
from fairgate.contracts.records import Environment, read_record
from fairgate.metrics.comparison import Comparison, Interval, Slice, compare, every_slice, parts_of, worst_change, worst_level
from fairgate.metrics.flips import ABSTENTION, GUARDS, Itemwise, itemwise, require_same_items
from fairgate.metrics.items import Items, benchmarks_of
from fairgate.metrics.noise import Noise, read_noise
from fairgate.metrics.statistic import Statistic
from fairgate.support.errors import FairgateError
from fairgate.support.files import atomic_path
from fairgate.support.tables import markdown_table
from stages.report.figures import number_text
from stages.report.itemlevel import DIGITS, ideal

CONFIDENCE, DRAWS, SEED = 0.95, 5_000, 0
COLUMNS = 100  # of prose
# What a model can do; the others are about bias.
ABLE = {name for name, task in descriptions().items() if task.about == "ability"}


@dataclass(frozen=True)
class Model:
    """One evaluation folder."""

    name: str
    table: pa.Table
    environment: Environment
    noise: Noise | None


@dataclass(frozen=True)
class Section:
    """One benchmark of all models: its metrics, overall and in every part, and its items one by
    one.
    """

    benchmark: str
    comparisons: list[Comparison]
    items: dict[str, Items]


def read(folder: Path) -> Model:
    """Read one evaluation folder; FairgateError where its table is not of one model."""
    table = read_items(folder / "items.parquet")
    names = pc.unique(table["model"]).to_pylist()
    if len(names) != 1:
        raise FairgateError(f"holds items of {names}", where=str(folder), remedy="give the folder of one evaluation")
    if smoke := [name for name in benchmarks_of(table) if name.endswith(SMOKE)]:
        raise FairgateError(f"{smoke[0]} is a smoke run, nobody's result", where=str(folder), remedy="evaluate without --smoke")
    environment = read_record(Environment, folder / "environment.json")
    return Model(names[0], table, environment, read_noise(folder, environment))


def section_of(benchmark: str, models: Sequence[Model]) -> Section:
    """Every metric of one benchmark for every model, with the parts it can be split into."""
    items = {model.name: items_of(model.table, benchmark) for model in models}
    pairs = [(model.name, models[0].name) for model in models[1:]]
    statistics = benchmark_of(benchmark).statistics
    comparisons = compare(
        items, statistics, every_slice(items[models[0].name], statistics), pairs, alpha=(1 - CONFIDENCE) / 2, draws=DRAWS, seed=SEED
    )
    return Section(benchmark, comparisons, items)


def render(models: Sequence[Model], sections: Sequence[Section], command: str) -> str:
    """The whole document."""
    parts = [_head(models, command), _overview(models, sections)]
    for title, able in (("Bias and fairness", False), ("Ability", True)):
        chosen = [section for section in sections if (section.benchmark in ABLE) is able]
        if chosen:
            parts += [f"## {title}", *(_metrics(section, models) for section in chosen)]
    parts += [_item_level(models, sections), _abstention(models, sections), _absent(models[0], sections)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(models: Sequence[Model], command: str) -> str:
    parent = models[0].name
    rows = [
        [
            model.name,
            f"`{model.environment.weight_digest[:12]}`",
            model.environment.device,
            model.environment.dtype,
            f"{model.table.num_rows:,}",
            ", ".join(f"{name} {version}" for name, version in sorted(model.environment.versions.items())),
        ]
        for model in models
    ]
    return f"""# Results

```
{command}
```

{markdown_table(["model", "weights", "device", "dtype", "items", "versions"], rows)}

Each cell has the value with its {CONFIDENCE:.0%} interval. Below it stands the paired difference to `{parent}` on
the same items, with an interval of its own. Terms are in the [glossary](glossary.md).

- **Intervals** come from {DRAWS:,} cluster bootstrap draws with seed {SEED}. Clusters are target terms,
  passages, questions or templates where items share one. A value without an interval rests on too
  few clusters. Intervals cover the choice of items, not the spread of rounding.
- **Neutral metrics.** For a metric with a neutral ideal the difference compares distances from the
  ideal: positive is more biased. Near the ideal, resampling only adds to a distance, so read such
  an interval beside both values.
- **A star** marks a difference whose interval excludes 0. Nothing is corrected for the number of
  rows. The interval of a worst group does not know that it was picked as the worst.
- **A metric in italics** guards the others: a model that knows less, or says less, may look fairer."""


def _overview(models: Sequence[Model], sections: Sequence[Section]) -> str:
    """The first metric of every benchmark, bias before ability."""
    rows = []
    for section in sorted(sections, key=lambda section: section.benchmark in ABLE):
        metric, statistic = next(iter(benchmark_of(section.benchmark).statistics.items()))
        whole = [c for c in section.comparisons if c.slice == Slice(metric)]
        rows.append([section.benchmark, f"{metric}<br>{ideal(statistic)}", *_cells(whole, statistic, models)])
    table = markdown_table(["benchmark", "metric", *(model.name for model in models)], rows)
    return f"## Overview\n\nThe first metric of every benchmark.\n\n{table}"


def _metrics(section: Section, models: Sequence[Model]) -> str:
    rows = []
    for metric, statistic in benchmark_of(section.benchmark).statistics.items():
        whole = [c for c in section.comparisons if c.slice == Slice(metric)]
        label = f"_{metric}_" if metric in GUARDS else f"**{metric}**"
        rows.append([f"{label}<br>{ideal(statistic)}", *_cells(whole, statistic, models)])
        for kind, parts in parts_of(section.comparisons, metric).items():
            rows.append([f"{metric}, worst {kind} of {len(parts)}", *_cells(parts, statistic, models)])
    table = markdown_table(["metric", *(model.name for model in models)], rows)
    return f"### {section.benchmark}\n\n{_size(section.benchmark, models[0])}\n\n{table}"


def _size(benchmark: str, model: Model) -> str:
    task = model.environment.tasks.get(benchmark, {})
    items = pc.sum(pc.equal(model.table["benchmark"], benchmark)).as_py()
    available, upstream = task.get("available", items), task.get("upstream", items)
    text = f"{items:,} items"
    if items < available:
        text += f", a sample of {available:,}"
    return text + (f" (partial: the whole set has {upstream:,})." if available < upstream else ".")


def _cells(parts: Sequence[Comparison], statistic: Statistic, models: Sequence[Model]) -> Iterator[str]:
    """One text a model: the level of the worst part and the most harmful change; of a single part
    simply its own.
    """
    digits, parent = DIGITS.get(statistic.unit, 3), models[0].name
    for model in models:
        level = worst_level(parts, statistic, model.name)
        text = _named(level, parts) + _text(level.levels[model.name], digits)
        if model.name != parent:
            pair = (model.name, parent)
            change = worst_change(parts, statistic, pair)
            text += f"<br>{_named(change, parts)}{_text(change.differences[pair], digits, signed=True)}"
        yield text


def _named(chosen: Comparison, parts: Sequence[Comparison]) -> str:
    return f"{chosen.slice.label}: " if len(parts) > 1 else ""


def _text(estimate: Interval, digits: int, *, signed: bool = False) -> str:
    if np.isnan(estimate.value):
        return "no value"
    text = number_text(estimate.value, digits, signed=signed)
    if estimate.low is None or estimate.high is None:
        return text
    star = "\\*" if signed and not estimate.low <= 0 <= estimate.high else ""
    return f"{text} [{number_text(estimate.low, digits)}, {number_text(estimate.high, digits)}]{star}"


def _item_level(models: Sequence[Model], sections: Sequence[Section]) -> str:
    """Flips against the parent, one row a benchmark and model."""
    parent, others = models[0], models[1:]
    items = {
        m.name: {i.benchmark: i for i in itemwise(m.name, [(s.items[m.name], s.items[parent.name]) for s in sections])} for m in others
    }
    rows = []
    for section in sections:
        for model in others:
            if item := items[model.name].get(section.benchmark):
                floor = parent.noise.floors.get(section.benchmark) if parent.noise else None
                rows.append([section.benchmark, model.name, *_item_row(item), "–" if floor is None else _percent(floor.rate)])
    head = ["benchmark", "model", "items", "answers flipped", "of low / medium / high entropy", "newly biased", "turned back"]
    head += ["new-bias rate", "reverse rate", "McNemar p", "adjusted p", "worst part", "noise floor"]
    return f"""## Item by item

Every item is compared with itself in `{parent.name}`, the reference.

- **Low, medium and high entropy** group the flips by the reference's uncertainty: its entropy is up
  to 1/3, up to 2/3, or more of a uniform choice's. Flips of low entropy are the alarming ones,
  because there the reference was sure.
- **New-bias rate:** the share that now has the stereotype as its answer, among the items that the
  reference answered otherwise.
- **McNemar p** is exact and takes items as independent. It is adjusted by Benjamini-Hochberg over
  the benchmarks of one model.

{_floor_text(parent)}

{markdown_table(head, rows)}"""


def _floor_text(parent: Model) -> str:
    if parent.noise is None:
        return "The noise floor, the flip rate of the stack itself, was not measured here."
    first, second = (f"{run.dtype} in batches of {run.batch_tokens:,} tokens" for run in parent.noise.runs)
    return (
        f"The noise floor is the flip rate of the reference against itself,\n{first} against {second}.\nA flip rate below it says nothing."
    )


def _item_row(item: Itemwise) -> list[str]:
    flips, worst = item.flips, item.worst
    low, *rest = [_percent(stratum.answer_flips) for stratum in item.strata] or [""]
    alarming = bool(item.strata) and item.strata[0].alarming
    named = next((x for x in (worst.group, worst.subgroup) if x), "") if worst else ""
    rate = None if worst is None else worst.answer_flips if worst.bias_flips is None else worst.new_bias
    return [
        f"{flips.n:,}",
        _percent(flips.answer_flips),
        " / ".join([f"**{low}**" if alarming else low, *rest]) or "–",
        *("–" if count is None else f"{count:,}" for count in (flips.newly_biased, flips.newly_unbiased)),
        _percent(flips.new_bias),
        _percent(flips.reverse),
        *(_p(p) for p in (flips.p_value, item.adjusted)),
        f"{named}: {_percent(rate)} (n = {worst.n:,})" if worst else "–",
    ]


def _abstention(models: Sequence[Model], sections: Sequence[Section]) -> str:
    """The change of the rate of abstaining, again, under its own name."""
    rows = []
    for section in sections:
        for metric in (name for name in ABSTENTION if name in benchmark_of(section.benchmark).statistics):
            comparisons = [c for c in section.comparisons if c.slice.metric == metric and c.slice.subgroup is None]
            for comparison in comparisons:
                pairs = [comparison.differences[model.name, models[0].name] for model in models[1:]]
                label = comparison.slice.label or "all groups"
                rows.append(
                    [section.benchmark, label, _text(comparison.levels[models[0].name], 3), *(_text(d, 3, signed=True) for d in pairs)]
                )
    if not rows:
        return ""
    head = ["benchmark", "group", f"rate of {models[0].name}", *(model.name for model in models[1:])]
    return f"""## Abstention

The change of the share of "unknown" on ambiguous questions (BBQ) and of "prefer not to answer"
(DiscrimEvalGen). Negative means that the model abstains less than the reference where it should.

{markdown_table(head, rows)}"""


def _absent(parent: Model, sections: Sequence[Section]) -> str:
    """Benchmarks that the engine knows and these tables do not hold, with the reason where the
    evaluation gave one.
    """
    measured, reasons = {section.benchmark for section in sections}, parent.environment.skipped
    absent = sorted(name for name in {*BENCHMARKS, *reasons} if name not in measured and not name.endswith(("_dev", "_valid")))
    lines = [f"- {name}: {reasons[name]}" for name in absent if name in reasons]
    asked = [name for name in absent if name not in reasons]
    lines += [f"- not asked for: {', '.join(asked)}"] if asked else []
    wrapped = (textwrap.fill(line, COLUMNS, subsequent_indent="  ", break_on_hyphens=False) for line in lines)
    return "\n".join(["## Not measured here", "", *wrapped]) if lines else ""


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _p(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def results(folders: Sequence[Path], command: str) -> str:
    """The document of these evaluations.

    Raises:
        UnequalItems: they do not hold the same items.
        FairgateError: two folders hold the same model.
    """
    models = [read(folder) for folder in folders]
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise FairgateError(f"models {names} are not all different", where="folders", remedy="give each evaluation once")
    for model in models[1:]:
        require_same_items(model.table, models[0].table)
    sections = [section_of(benchmark, models) for benchmark in benchmarks_of(models[0].table)]
    return render(models, sections, command)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="evaluation folders, the parent first")
    parser.add_argument("--out", type=Path, help="file to write; otherwise the tables are printed")
    parser.add_argument("--before", default="", help="how the evaluations were made: printed above this command")
    arguments = parser.parse_args()
    own = shlex.join(["python", "-m", "experiments.results_table", *map(str, arguments.folders)])
    command = own + (f" --out {arguments.out}" if arguments.out else "")
    try:
        text = results(arguments.folders, f"{arguments.before}\n{command}".strip())
    except FairgateError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.out is None:
        print(text, end="")
    else:
        text += kept(arguments.out)
        with atomic_path(arguments.out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
