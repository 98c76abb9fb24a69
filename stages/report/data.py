"""Gather what the report shows: check the files of earlier stages, compute the numbers once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from fairgate.contracts.contributions import FILE as CONTRIBUTIONS
from fairgate.contracts.contributions import Contribution, read_contributions
from fairgate.contracts.item_table import read_items
from fairgate.contracts.recipes import is_unquantized
from fairgate.contracts.records import Environment, Quantization, Split, VerdictRecord, read_record
from fairgate.metrics.flips import Itemwise, require_same_items
from fairgate.metrics.items import benchmarks_of
from fairgate.metrics.noise import Noise, read_noise
from fairgate.support.errors import BadRecord, UnknownName
from fairgate.support.files import read_json
from fairgate.support.params import pick, read_params
from stages.report.itemlevel import MetricRow, all_items, metric_rows
from stages.report.results import SUMMARY, Flip, Power, Result, all_flips, power, results


@dataclass(frozen=True)
class EvaluatedRecipe:
    """One recipe as it was run; `quantization` is None for the unquantized base."""

    name: str
    method: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    environment: Environment
    quantization: Quantization | None
    contributions: Sequence[Contribution] = ()  # empty without a fairness term


@dataclass(frozen=True)
class Report:
    """Everything that page, plots and card show."""

    model: str
    candidate: str
    reference: str
    recipes: tuple[EvaluatedRecipe, ...]
    verdict: VerdictRecord
    split: Split
    source: Mapping[str, Any]
    sources: Mapping[str, Mapping[str, Any]]
    asked: Mapping[str, int | None]
    judged: Mapping[str, int]  # items of each benchmark
    confidence: float
    results: tuple[Result, ...]
    flips: tuple[Flip, ...]
    power: tuple[Power, ...]
    items: tuple[Itemwise, ...]
    rows: tuple[MetricRow, ...]
    noise: Noise | None  # of the reference, if it was run twice

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(recipe.name for recipe in self.recipes)

    @property
    def baselines(self) -> tuple[str, ...]:
        """The quantized recipes that the candidate stands beside."""
        return tuple(name for name in self.names if name not in (self.candidate, self.reference))

    def recipe(self, name: str) -> EvaluatedRecipe:
        return next(recipe for recipe in self.recipes if recipe.name == name)

    def result(self, key: str, group: str | None = None) -> Result | None:
        return next((c for c in self.results if c.metric.key == key and c.group == group), None)

    def series(self, name: str) -> int:
        """Index of color and marker.

        The reference has 0 and the candidate 1; the others follow in the order of params.yaml.
        """
        return [self.reference, self.candidate, *(n for n in self.names if n not in (self.reference, self.candidate))].index(name)

    def mib(self, name: str) -> float | None:
        """Size of the weights; the base's is written in the records of what was made from it."""
        quantization = self.recipe(name).quantization
        if quantization is not None:
            return quantization.bytes_packed / 2**20
        made = next((recipe.quantization for recipe in self.recipes if recipe.quantization), None)
        return made.bytes_base / 2**20 if made else None


def gather(root: Path, params_path: Path) -> Report:
    """Read the run below `root`.

    Raises:
        MissingFile, BadRecord: A file of an earlier stage is absent or broken; the message names
            the stage to run.
        UnequalItems: A recipe was judged on other items than the reference.
        UnknownName: The gate names a recipe that does not exist.
    """
    params = read_params(params_path)
    policy = pick(params, "gate", where=str(params_path))
    candidate, reference = (pick(policy, key, where=f"{params_path}:gate") for key in ("candidate", "reference"))
    recipes = pick(params, "recipes", where=str(params_path))
    for key, name in (("candidate", candidate), ("reference", reference)):
        if name not in recipes:
            raise UnknownName.of("recipe", str(name), recipes, where=f"{params_path}:gate.{key}")
    data = root / "data"
    # A recipe that left the matrix leaves its table of another run behind.
    current = ("base", *pick(params, "matrix", where=str(params_path)))
    evaluated = {path.name for path in (data / "evaluation").glob("*")}
    present = [name for name in recipes if name in (candidate, reference) or (name in current and name in evaluated)]
    tables = {name: read_items(data / "evaluation" / name / "items.parquet") for name in present}
    for name in present:
        require_same_items(tables[name], tables[reference])
    read = tuple(_recipe(data, name, recipes[name]) for name in present)
    verdict = _verdict(data, candidate, next(r for r in read if r.name == candidate))
    confidence, draws, seed = verdict.confidence, verdict.draws, verdict.seed
    measured = results(tables, candidate, reference, confidence=confidence, draws=draws, seed=seed)
    _agree(measured, read)
    return Report(
        model=str(params.get("model", "")),
        candidate=candidate,
        reference=reference,
        recipes=read,
        verdict=verdict,
        split=read_record(Split, data / "calibration" / "split.json"),
        source=_mapping(data / "base" / "SOURCE.json", "fetch"),
        sources=_sources(data / "raw" / "SOURCES.json"),
        asked=dict((params.get("evaluate") or {}).get("tasks") or {}),
        judged={name: pc.sum(pc.equal(tables[reference]["benchmark"], name)).as_py() for name in benchmarks_of(tables[reference])},
        confidence=confidence,
        results=measured,
        flips=all_flips(tables, reference),
        power=power(tables, measured, candidate, reference),
        items=all_items(tables, reference),
        rows=metric_rows(tables, reference, [m.benchmark for m in SUMMARY], confidence=confidence, draws=draws, seed=seed),
        noise=read_noise(data / "evaluation" / reference, next(r.environment for r in read if r.name == reference)),
    )


def timing(root: Path) -> list[dict[str, Any]]:
    """The records of `data/timing`, sorted by name; empty where no stage has written one."""
    return [read_json(path) for path in sorted((root / "data" / "timing").glob("*.json"))]


def _recipe(data: Path, name: str, settings: Mapping[str, Any]) -> EvaluatedRecipe:
    folder, method = data / "evaluation" / name, str(settings.get("method"))
    path = data / "models" / name / "quantization.json"
    quantization = None if is_unquantized(method) else read_record(Quantization, path)
    if quantization is not None and quantization.recipe != name:
        remedy = "run `dvc repro quantize` to write it again"
        raise BadRecord(f"the record is of recipe {quantization.recipe!r}", where=str(path), remedy=remedy)
    return EvaluatedRecipe(
        name=name,
        method=method,
        settings=dict(quantization.settings if quantization else settings),
        metrics=_numbers(folder / "metrics.json"),
        environment=read_record(Environment, folder / "environment.json"),
        quantization=quantization,
        contributions=read_contributions(path.with_name(CONTRIBUTIONS)) if quantization and CONTRIBUTIONS in quantization.files else (),
    )


def _verdict(data: Path, candidate: str, recipe: EvaluatedRecipe) -> VerdictRecord:
    path = data / "reports" / candidate / "verdict.json"
    verdict = read_record(VerdictRecord, path)
    remedy = "run `dvc repro gate` to write it again"
    if verdict.candidate != candidate:
        raise BadRecord(f"the verdict is about {verdict.candidate!r}, the policy names {candidate!r}", where=str(path), remedy=remedy)
    if recipe.quantization and verdict.weight_digest != recipe.quantization.weight_digest:
        raise BadRecord("the verdict was reached on other weights than quantization.json names", where=str(path), remedy=remedy)
    return verdict


def _agree(measured: tuple[Result, ...], recipes: tuple[EvaluatedRecipe, ...]) -> None:
    """metrics.json and the item table must tell the same numbers, or one of them is stale."""
    for recipe in recipes:
        for result in measured:
            key = result.metric.key if result.group is None else f"{result.metric.key}.{result.group}"
            from_table, stated = result.levels[recipe.name].value / result.metric.scale, recipe.metrics.get(key)
            if stated is None or not math.isclose(from_table, stated, rel_tol=1e-6, abs_tol=1e-9):
                raise BadRecord(
                    f"{key} is {stated}, but the item table gives {from_table:.6g}",
                    where=f"data/evaluation/{recipe.name}/metrics.json",
                    remedy="run `dvc repro evaluate` to write both again",
                )


def _mapping(path: Path, stage: str) -> dict[str, Any]:
    value = read_json(path, written_by=stage)
    if not isinstance(value, dict):
        raise BadRecord("not a JSON object", where=str(path), remedy=f"run `dvc repro {stage}` to write it again")
    return value


def _numbers(path: Path) -> dict[str, float]:
    return {key: float(value) for key, value in _mapping(path, "evaluate").items() if isinstance(value, int | float)}


def _sources(path: Path) -> dict[str, dict[str, Any]]:
    sets = _mapping(path, "fetch").get("sets")
    if not isinstance(sets, dict):
        raise BadRecord("no `sets`", where=str(path), remedy="run `dvc repro fetch` to write it again")
    return sets
