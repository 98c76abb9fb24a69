"""The model card, in the hub's format.

YAML front matter holds the results. Below it stands what a reader must know before using the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import EvalResult, ModelCardData

from fairgate.benchmarks.descriptions import description
from fairgate.contracts.gptq_format import GPTQMODEL_ONLY
from fairgate.support.tables import markdown_table
from stages.report.data import EvaluatedRecipe, Report
from stages.report.results import SUMMARY, TITLES
from stages.report.templates import fill, inline
from stages.report.words import WORDS, base_name, checks_line, estimate_text, learning_text, limits, meaning

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
    recipe = report.recipe(report.candidate)
    before, after = report.mib(report.reference), report.mib(report.candidate)
    values = {
        "run": report,
        "recipe": recipe,
        "front": _front_matter(report).to_yaml(),
        "base": base_name(report),
        "bits": recipe.settings.get("bits", "16"),
        "group": recipe.settings.get("group_size", "–"),
        "size": (before, after) if before and after else None,
        "word": WORDS[report.verdict.verdict],
        "meaning": meaning(report),
        "made": _how_it_was_made(report, recipe),
        "settings": _settings_table(recipe),
        "statuses": _status_counts(recipe),
        "level": f"{100 * report.confidence:g}",
        "results": _results_table(report),
        "groups": _groups_table(report),
        "checks_line": checks_line(report),
        "limits": limits(report),
        "load": _loading_code(recipe),
        "sets": [(n, s) for n, s in sorted(report.sources.items()) if n in report.split.roles],
    }
    return fill("card.md.j2", values)


def _front_matter(report: Report) -> ModelCardData:
    stated, settings = str(report.source.get("licence", "")), report.recipe(report.candidate).settings
    plain = bool(stated) and " " not in stated
    quantized = {key: _yaml_value(settings[key]) for key in _FACTS if settings.get(key) is not None}
    return ModelCardData(
        base_model=base_name(report),
        license=stated.lower() if plain else "other",
        license_name=None if plain or not stated else stated,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["gptq", "quantized", "fairness", "fairgate", f"fairgate-{report.verdict.verdict.value}"],
        model_name=f"{base_name(report).split('/')[-1]}-{report.candidate}",
        eval_results=_hub_results(report),
        base_model_relation="quantized",
        quantization={"quant_method": "gptq", "recipe": report.candidate, **quantized},
    )


def _hub_results(report: Report) -> list[EvalResult]:
    """Exactly the numbers of metrics.json, under their own names."""
    metrics = report.recipe(report.candidate).metrics
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=metric.benchmark,
            dataset_name=description(metric.benchmark).data_name,
            metric_type=metric.key.split(".")[1],
            metric_name=metric.name.removesuffix(", %"),
            metric_value=metrics[metric.key],
        )
        for metric in SUMMARY
        if metric.key in metrics
    ]


def _settings_table(recipe: EvaluatedRecipe) -> str:
    rows = [(key, _yaml_value(value)) for key, value in recipe.settings.items() if value is not None]
    return markdown_table(["Setting", "Value"], [[inline(key), inline(str(value))] for key, value in sorted(rows)])


def _status_counts(recipe: EvaluatedRecipe) -> str:
    """How many modules ended with each status, in the order in which they occur."""
    statuses = [module.status.value for module in recipe.quantization.modules] if recipe.quantization else []
    return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))


def _how_it_was_made(report: Report, recipe: EvaluatedRecipe) -> str:
    """What the method does, for a reader who does not know it, and on which data."""
    text, pairs, texts, ended = _GPTQ, report.split.pairs, report.split.texts, ""
    if recipe.quantization and recipe.quantization.training:
        text = _LEARNED + (_FAIR if "parity" in recipe.settings else "")
        pairs, texts = recipe.quantization.pairs, recipe.quantization.texts
        ended = f" {inline(learning_text(recipe.quantization.training))}"
    seen = f"{pairs:,} pairs of\nStereoSet over {len(report.split.calibration_terms)} target terms and " if pairs else ""
    return f"{text} Calibration: {seen}{texts:,} passages of general text, none of them part\nof a set it was judged on.{ended}"


def _loading_code(recipe: EvaluatedRecipe) -> str:
    """The lines that load the checkpoint, by the library that can."""
    architecture = recipe.quantization.architecture if recipe.quantization else ""
    if recipe.settings.get("bits_by_module") or architecture.startswith(GPTQMODEL_ONLY):
        return _GPTQMODEL
    return _TRANSFORMERS


def _results_table(report: Report) -> str:
    names = list(report.names)
    rows: list[Sequence[str]] = []
    for metric in SUMMARY:
        result = report.result(metric.key)
        if result:
            values = [estimate_text(result.levels.get(name), metric.digits) for name in names]
            change = estimate_text(result.changes.get(report.candidate), metric.digits, signed=True)
            rows.append([metric.name, *values, change])
    sizes = [f"{mib:,.1f}" if (mib := report.mib(name)) is not None else "–" for name in names]
    rows.append(["Weights, MiB", *sizes, ""])
    return markdown_table(["Measure", *map(inline, names), f"change, {inline(report.candidate)}"], rows)


def _groups_table(report: Report) -> str:
    rows = []
    for result in report.results:
        if result.group is None:
            continue
        reference, candidate = result.levels[report.reference], result.levels[report.candidate]
        change = estimate_text(result.changes.get(report.candidate), 1, signed=True)
        name = TITLES[result.metric.benchmark]
        rows.append([name, inline(result.group), candidate.n, estimate_text(reference, 1), estimate_text(candidate, 1), change])
    return markdown_table(["Set", "Group", "n", "base", "candidate", "change of the distance from 50"], rows)


def _yaml_value(value: object) -> object:
    """Values that YAML can hold as they are; anything else as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return value if isinstance(value, str | int | float) else str(value)
