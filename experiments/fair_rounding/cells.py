"""What declaration.yaml declares, as cells; where their results lie; and the rule that chooses
among the cells of a search.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from experiments.rule import Rule, distance
from fairgate.contracts.recipes import UNQUANTIZED, is_unquantized
from fairgate.contracts.records import Role
from fairgate.support.errors import FairgateError, UnknownName
from fairgate.support.files import read_json
from fairgate.support.params import Section, parse
from fairgate.support.strict_yaml import read_yaml

Calibration = Literal["plain", "bootstrap", "shuffled", "unrelated", "text"]
Phase = Literal["search", "final"]
PHASES: tuple[Phase, ...] = ("search", "final")


class Entry(Section):
    """Cells that belong together: every variant under every seed."""

    name: str
    chosen: str | None = Field(
        None,
        description="start from the recipe that the search chose in the family of this name; in the search itself, that of a rule above",
    )
    recipe: dict[str, Any] = Field({}, description="settings of the method, on top of the chosen recipe")
    variants: dict[str, dict[str, Any]] = Field({"": {}}, description="name -> further changes")
    seeds: list[int] = Field([0])
    calibration: Calibration = Field("plain", description="what calibration_variants.py does with the calibration folder before")
    tasks: dict[str, int | None] | None = Field(None, description="None means the phase's own")
    sampled: int = Field(0, description="texts that sampled_words.py samples behind every occupation")


class Evaluation(Section):
    """Tasks of a phase with the items drawn of each; null: all."""

    role: Role = Field(strict=False)
    tasks: dict[str, int | None]


class Table(Section):
    """What the tables show."""

    candidate: str
    learned: str
    rivals: list[str] = Field(description="whom the candidate is compared with")
    zero_shot: list[str] = Field(description="metrics whose mean is compared with the base's")
    perplexity: str
    sweeps_against: str = Field(description="label that entries with variants are compared with")
    plot: dict[str, list[str]] = Field(description="what has one color -> its entries")


class Declaration(Section):
    """The whole file."""

    defaults: dict[str, Any]
    evaluation: dict[Phase, Evaluation]
    types: list[str] = Field(description="StereoSet bias types of which the rule takes the worst")
    rules: dict[str, Rule]
    search: list[Entry]
    final: list[Entry]
    table: Table

    def cells(self, phase: Phase, chosen: Mapping[str, dict[str, Any]]) -> list[Cell]:
        """The cells of a phase in the order in which they are run.

        Args:
            chosen: family -> recipe; cells of a family that nobody has chosen yet have no recipe.
        Raises:
            FairgateError: two cells of one name.
        """
        evaluation = self.evaluation[phase]
        cells = []
        for entry in self.search if phase == "search" else self.final:
            for seed in entry.seeds:
                for variant, changes in entry.variants.items():
                    recipe = self._recipe(entry, changes, chosen)
                    tasks = entry.tasks or evaluation.tasks
                    cells.append(Cell(phase, entry.name, variant, seed, recipe, entry.calibration, tasks, evaluation.role, entry.sampled))
        names = [cell.name for cell in cells]
        if double := {name for name in names if names.count(name) > 1}:
            raise FairgateError(f"cell {min(double)!r} is declared twice", where=phase, remedy="name one of them differently")
        return cells

    def _recipe(self, entry: Entry, changes: dict[str, Any], chosen: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
        if entry.chosen is not None and entry.chosen not in chosen:
            return None
        start = self.defaults if entry.chosen is None else chosen[entry.chosen]
        recipe = {**start, **entry.recipe, **changes}
        return {"method": UNQUANTIZED} if is_unquantized(recipe["method"]) else recipe


@dataclass(frozen=True)
class Cell:
    """One model and its evaluation.

    recipe: None means that it depends on a choice that has not been made.
    """

    phase: Phase
    entry: str
    variant: str
    seed: int
    recipe: dict[str, Any] | None
    calibration: Calibration
    tasks: dict[str, int | None]
    role: Role
    sampled: int = 0

    @property
    def label(self) -> str:
        """What the seeds of one setting share."""
        return f"{self.entry}-{self.variant}" if self.variant else self.entry

    @property
    def name(self) -> str:
        return f"{self.label}-s{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        more = {"sampled": self.sampled} if self.sampled else {}
        return {"recipe": self.recipe, "seed": self.seed, "calibration": self.calibration, "tasks": self.tasks, **more}

    def folder(self, out: Path) -> Path:
        return out / self.phase / self.name

    def result(self, out: Path) -> dict[str, Any] | None:
        """What was measured of this cell as it is declared now; None: it was not run."""
        path = self.folder(out) / "result.json"
        result: dict[str, Any] | None = read_json(path) if path.is_file() else None
        return result if result and result["settings"] == self.settings else None

    def failed(self, out: Path) -> bool:
        """Whether it was tried as it is declared now, and ended in an error."""
        path = self.folder(out) / "failure.json"
        return path.is_file() and read_json(path)["settings"] == self.settings

    def why_not(self, out: Path) -> str:
        """Why there is no result."""
        path = self.folder(out) / "failure.json"
        if path.is_file():
            return " ".join(str(read_json(path)["reason"]).split())
        return "not run" if self.recipe else "not run: nothing was chosen for it"


def read(path: Path) -> Declaration:
    """The declaration; FairgateError names a key that is wrong."""
    return parse(Declaration, read_yaml(path), where=str(path))


def recipes(choices: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Family -> its recipe alone."""
    return {name: choice["recipe"] for name, choice in choices.items()}


def chosen_recipes(out: Path) -> dict[str, dict[str, Any]]:
    """Family -> recipe, as `choose` wrote it; nothing where it has not run."""
    path = out / "chosen.json"
    return recipes(read_json(path)) if path.is_file() else {}


def longest(method: str, out: Path) -> float:
    """Seconds of the longest cell of a method that was run; 0 where none was."""
    results = (read_json(path) for path in out.glob("*/*/result.json"))
    return max(
        (result["quantize_s"] + result["evaluate_s"] for result in results if result["settings"]["recipe"]["method"] == method), default=0.0
    )


def choose(declaration: Declaration, out: Path, families: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """Family -> its recipe by the rule, with the table it was chosen from.

    Families of which no cell was run are left out. Values are means over the seeds that all
    candidates were run with. The least distance among the eligible is chosen; where none is
    eligible, and where there is no reference, the least perplexity among all. A candidate that
    failed with a seed, on every machine that tried, is left out. A distance is the mean of the
    seeds' distances, so a setting is not called neutral because its seeds err on both sides.

    Rules are followed in their order, because a later one may start from what an earlier one chose.

    Args:
        declaration: the declared cells and rules.
        out: folder of the results.
        families: the rules to follow; None means all.
    Raises:
        FairgateError: a reference was not run, candidates have no seed in common, or they or the
            reference were run on different data.
        UnknownName: a rule for no entry.
    """
    choices: dict[str, dict[str, Any]] = {}
    for family, rule in declaration.rules.items():
        cells = declaration.cells("search", recipes(choices))
        members = [cell for cell in cells if cell.entry == family]
        if families is not None and family not in families:
            continue
        if not members:
            raise UnknownName.of("family", family, [cell.entry for cell in cells], where="rules")
        failed = {cell.label for cell in members if cell.failed(out) and not cell.result(out)}
        compared = [cell for cell in members if cell.label not in failed]
        rows = _rows(compared, declaration, out)
        if not rows:
            continue
        eligible = []
        if rule.reference is not None:
            name = choices[rule.reference]["chosen"] if rule.reference in choices else rule.reference
            references = [cell for cell in cells if cell.label == name]
            reference_rows = _rows(references, declaration, out)
            compared += references
            if not reference_rows:
                raise FairgateError(f"the reference {name!r} was not run", where=f"rule {family!r}", remedy="run the search first")
            eligible = [label for label, row in rows.items() if rule.allows(row, reference_rows[name])]
        _require_same_data(compared, out)
        by = "distance" if eligible else "perplexity"
        best = min(eligible or rows, key=lambda label: rows[label][by])
        choices[family] = {
            "chosen": best,
            "recipe": next(cell.recipe for cell in members if cell.label == best),
            "rule": rule.model_dump(mode="json"),
            "eligible": eligible,
            "rows": rows,
            "failed": sorted(failed),
            "not_run": [cell.name for cell in members if not cell.result(out)],
        }
    return choices


def _require_same_data(cells: Sequence[Cell], out: Path) -> None:
    """FairgateError where results are of different base weights or calibration data, as after a
    merge of two machines' folders.
    """
    first: dict[tuple[str | None, str | None], Cell] = {}
    for cell in cells:
        if result := cell.result(out):
            first.setdefault((result["inputs"].get("base"), result["inputs"].get("calibration")), cell)
    if len(first) > 1:
        folder, differing = [cell.folder(out) for cell in first.values()][:2]
        raise FairgateError(
            f"{folder.name!r} and {differing.name!r} were run on different base weights or calibration data (`inputs` of result.json)",
            where=str(folder.parent),
            remedy="run the search again on the right ones with --retry, or remove the folders of the cells that ran on others",
        )


def _rows(cells: Sequence[Cell], declaration: Declaration, out: Path) -> dict[str, dict[str, float]]:
    """Label -> means over the seeds that all labels with results have in common."""
    metrics: dict[str, dict[int, dict[str, float]]] = {}
    for cell in cells:
        if result := cell.result(out):
            metrics.setdefault(cell.label, {})[cell.seed] = result["metrics"]
    if not metrics:
        return {}
    seeds = set.intersection(*(set(of) for of in metrics.values()))
    if not seeds:
        raise FairgateError(f"{', '.join(metrics)} have no seed in common", where=str(out), remedy="run more of the search")
    return {label: _means([of[seed] for seed in sorted(seeds)], declaration) for label, of in metrics.items()}


def _means(metrics: Sequence[dict[str, float]], declaration: Declaration) -> dict[str, float]:
    columns = {
        "distance": [distance(measured, declaration.types) for measured in metrics],
        "perplexity": [measured["perplexity_dev.ppl"] for measured in metrics],
        "lms": [measured["stereoset_dev.lms"] for measured in metrics],
        "ss": [measured["stereoset_dev.ss"] for measured in metrics],
        "redditbias": [measured["redditbias_valid.ss"] for measured in metrics],
        "winobias": [measured["winobias_dev.historical_bias"] for measured in metrics],
    }
    return {name: sum(values) / len(values) for name, values in columns.items()} | {"seeds": len(metrics)}
