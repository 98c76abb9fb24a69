"""The model card, in the hub's format: YAML front matter with the results, then what a reader must know before using the model."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import EvalResult, ModelCardData

from fairgate.contracts.gptq_format import GPTQMODEL_ONLY
from fairgate.support.tables import markdown_table
from stages.report.data import Recipe, Report
from stages.report.measures import SUMMARY, TITLES
from stages.report.words import WORDS, base_name, checks_line, estimate_text, learning_text, limits, meaning

_TASKS = {"stereoset": "StereoSet, test, intrasentence", "crows_pairs": "CrowS-Pairs", "perplexity": "held-out Wikipedia text"}

_TRANSFORMERS = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")"""
_GPTQMODEL = """from gptqmodel import GPTQModel

model = GPTQModel.load("path/to/this/folder")  # transformers cannot load this checkpoint
tokenizer = model.tokenizer"""

_GPTQ = """\
GPTQ rounds the weights of one layer after another so that the layer's outputs change least on calibration text. Fair-GPTQ adds a term
that also pulls together what the layer says about the two sentences of a stereotype pair."""
_LEARNED = """\
Learned rounding decides for every weight whether it goes up or down, and for every group of weights how far its grid reaches, by
gradient steps of the whole model towards what the unquantized model predicts on general text."""
_FAIR = """ Here the loss also
asks that in every group of stereotype pairs the stereotype be the likelier sentence as often as not, and that the likelihoods of the
sentences stay where they were."""

_FACTS = ("bits", "group_size", "symmetric", "mode", "alignment", "alpha", "rho", "start", "steps", "parity", "anchor")


def render(report: Report) -> str:
    """The candidate's README.md; equal reports give equal text."""
    return f"---\n{_front(report).to_yaml()}\n---\n\n{_text(report)}"


def _front(report: Report) -> ModelCardData:
    licence, settings = str(report.source.get("licence", "")), report.recipe(report.candidate).settings
    plain = bool(licence) and " " not in licence
    quantized = {key: _plain(settings[key]) for key in _FACTS if settings.get(key) is not None}
    return ModelCardData(
        base_model=base_name(report),
        license=licence.lower() if plain else "other",
        license_name=None if plain or not licence else licence,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["gptq", "quantized", "fairness", "fairgate", f"fairgate-{report.verdict.verdict.value}"],
        model_name=f"{base_name(report).split('/')[-1]}-{report.candidate}",
        eval_results=_results(report),
        base_model_relation="quantized",
        quantization={"quant_method": "gptq", "recipe": report.candidate, **quantized},
    )


def _results(report: Report) -> list[EvalResult]:
    """Exactly the numbers of metrics.json, under their own names."""
    metrics = report.recipe(report.candidate).metrics
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=measure.benchmark,
            dataset_name=_TASKS.get(measure.benchmark, TITLES.get(measure.benchmark, measure.benchmark)),
            metric_type=measure.metric.split(".")[1],
            metric_name=measure.name.removesuffix(", %"),
            metric_value=metrics[measure.metric],
        )
        for measure in SUMMARY
        if measure.metric in metrics
    ]


def _text(report: Report) -> str:
    recipe = report.recipe(report.candidate)
    base, verdict = base_name(report), report.verdict
    settings = recipe.settings
    bits, group = settings.get("bits", "16"), settings.get("group_size", "–")
    reasons = "\n".join(f"- {_inline(reason)}" for reason in verdict.reasons)
    bullets = "\n".join(f"- {_inline(line)}" for line in limits(report))
    sets = "\n".join(
        f"- {_inline(name)} ({_inline(str(source.get('licence', 'licence not stated')))}): {_inline(str(source.get('attribution', '')))}"
        for name, source in sorted(report.sources.items())
        if name in report.split.roles
    )
    quantization = recipe.quantization
    counts = ""
    if quantization:
        names = [m.status.value for m in quantization.modules]
        counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    before, after = report.mib(report.reference), report.mib(report.candidate)
    size = f" The weights take {after:,.1f} MiB instead of {before:,.1f} MiB." if before and after else ""
    stated = sorted((key, _plain(value)) for key, value in settings.items() if value is not None)
    facts = markdown_table(["Setting", "Value"], [[_inline(key), _inline(str(value))] for key, value in stated])
    weights = f"\n\nWeights: sha256 `{quantization.weight_digest}`. Modules: {counts}." if quantization else ""
    return f"""# {_inline(base.split("/")[-1])}, {bits} bits, recipe {_inline(report.candidate)}

{_inline(base)} with its linear layers quantized to {bits} bits in groups of {group} by the recipe `{_inline(report.candidate)}` \
({_inline(recipe.method)}), as a packed GPTQ checkpoint.{size}

**Verdict: {WORDS[verdict.verdict]}.** {_inline(meaning(report))}

## How it was made

{_made(report, recipe)}

{facts}{weights}

## Bias, accuracy, size

Values with {100 * report.confidence:g} % intervals; the change is paired, on the same items, against {_inline(report.reference)}.

{_table(report)}

For StereoSet SS and CrowS-Pairs 50 is neutral, and the change is that of the distance from 50: negative is less biased. Per group:

{_groups(report)}

## The verdict

{checks_line(report)}

{reasons}

A check passes when the data exclude harm beyond its margin, fails when they show it, and is open otherwise. An approval says that no harm
beyond the margins is compatible with these items. It does not say that the model is free of bias.

## Intended use

Research on quantization and bias, and uses for which its base model is suitable. It inherits the base model's limits, language and licence.
Not for decisions about people.

## Limits

{bullets}

## How to load

```python
{_load(recipe)}
```

## Attribution

Base model: {_inline(str(report.source.get("attribution", base)))}; licence {_inline(str(report.source.get("licence", "not stated")))}.

{sets}
"""


def _made(report: Report, recipe: Recipe) -> str:
    """What the method does, for a reader who does not know it, and on which data."""
    text, pairs, texts, ended = _GPTQ, report.split.pairs, report.split.texts, ""
    if recipe.quantization and recipe.quantization.training:
        text = _LEARNED + (_FAIR if recipe.method == "fair_round" else "")
        pairs, texts = recipe.quantization.pairs, recipe.quantization.texts
        ended = f" {_inline(learning_text(recipe.quantization.training))}"
    seen = f"{pairs:,} pairs of\nStereoSet over {len(report.split.calibration_terms)} target terms and " if pairs else ""
    return f"{text} Calibration: {seen}{texts:,} passages of general text, none of them part\nof a set it was judged on.{ended}"


def _load(recipe: Recipe) -> str:
    """The lines that load the checkpoint, by the library that can."""
    architecture = recipe.quantization.architecture if recipe.quantization else ""
    if recipe.settings.get("bits_by_module") or architecture.startswith(GPTQMODEL_ONLY):
        return _GPTQMODEL
    return _TRANSFORMERS


def _table(report: Report) -> str:
    names = list(report.names)
    rows: list[Sequence[str]] = []
    for measure in SUMMARY:
        cell = report.cell(measure.metric)
        if cell:
            values = [estimate_text(cell.levels.get(name), measure.digits) for name in names]
            change = estimate_text(cell.changes.get(report.candidate), measure.digits, signed=True)
            rows.append([measure.name, *values, change])
    sizes = [f"{mib:,.1f}" if (mib := report.mib(name)) is not None else "–" for name in names]
    rows.append(["Weights, MiB", *sizes, ""])
    return markdown_table(["Measure", *map(_inline, names), f"change, {_inline(report.candidate)}"], rows)


def _groups(report: Report) -> str:
    rows = []
    for cell in report.cells:
        if cell.group is None:
            continue
        base, own = cell.levels[report.reference], cell.levels[report.candidate]
        change = estimate_text(cell.changes.get(report.candidate), 1, signed=True)
        name = TITLES[cell.measure.benchmark]
        rows.append([name, _inline(cell.group), own.n, estimate_text(base, 1), estimate_text(own, 1), change])
    return markdown_table(["Set", "Group", "n", "base", "candidate", "change of the distance from 50"], rows)


def _plain(value: object) -> object:
    """Values that YAML can hold as they are; anything else as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return value if isinstance(value, str | int | float) else str(value)


def _inline(text: str) -> str:
    """Text that cannot become markup, a table column or a heading."""
    return text.replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")
