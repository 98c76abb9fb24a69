"""One cell of the experiment of learned fair rounding: a model is quantized and evaluated, and its
result is stored.
"""

from __future__ import annotations

import contextlib
import gc
import platform
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from experiments.fair_rounding.calibration_variants import VARIANTS, of_text
from experiments.fair_rounding.cells import Cell
from experiments.fair_rounding.prepared import StoredTasks, made_from, prepare
from experiments.fair_rounding.sampled_words import sampled
from fairgate.benchmarks.descriptions import FOLDER
from fairgate.contracts.item_table import read_items
from fairgate.contracts.recipes import is_unquantized
from fairgate.contracts.records import Text, read_records
from fairgate.model_folder.weights import weight_digest
from fairgate.support.devices import pick_batch_tokens, pick_device
from fairgate.support.digests import sha256_folder, sha256_json
from fairgate.support.errors import FairgateError
from fairgate.support.files import atomic_path, write_json
from fairgate.support.locks import locked
from fairgate.support.log import log
from fairgate.support.params import parse
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.selection import Selection
from stages.evaluate.session import Workspace
from stages.evaluate.settings import Evaluate
from stages.evaluate.stage import Subject, evaluate
from stages.quantize.methods.base import GridRecipe
from stages.quantize.settings import RunSettings, parse_recipe
from stages.quantize.stage import quantize

# Of an item table: what depends on the model
MEASURED = ("option_loglik", "text", "answer", "status", "score")


@dataclass(frozen=True)
class Place:
    """Where an experiment reads and writes, and what its cells share within one process.

    text: for cells calibrated on it.
    """

    base: Path
    calibration: Path
    raw: Path
    out: Path
    text: Path
    device: str = "auto"
    run: dict[str, Any] = field(default_factory=dict)
    tasks: Path = FOLDER

    @cached_property
    def on_gpu(self) -> bool:
        return pick_device(self.device, parameter="--device").type == "cuda"

    @property
    def batch_tokens(self) -> int:
        """As `auto` is in evaluate; a prepared task is of one number."""
        return pick_batch_tokens("auto", pick_device(self.device, parameter="--device"))

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.raw, self.calibration / "split.json", self.tasks)

    @cached_property
    def _prepared(self) -> Path:
        return self.out / "ready" / made_from(self.raw, self.calibration / "split.json", self.tasks)[:16]

    @cached_property
    def prepared(self) -> StoredTasks:
        """The tasks that were prepared for all processes, and those that this one prepares itself.

        Waits for a process that prepares some.
        """
        with locked(self._prepared.with_suffix(".lock"), shared=True):
            return StoredTasks(self._prepared)

    def prepare(self, cells: Sequence[Cell], workers: int) -> None:
        """Make the tasks of the cells ready for all processes; whoever wants to evaluate meanwhile
        waits.
        """
        different = {(cell.role, *cell.tasks.items()): cell for cell in cells}
        evaluations = [self.evaluation(cell, cell.tasks) for cell in different.values()]
        with locked(self._prepared.with_suffix(".lock")):
            prepare(self.base, self.catalogue, evaluations, self._prepared, batch_tokens=self.batch_tokens, workers=workers)

    def evaluation(self, cell: Cell, tasks: dict[str, int | None]) -> Evaluate:
        """How those of a cell's tasks are evaluated that have data."""
        return Evaluate(role=cell.role.value, seed=0, device=self.device, dtype="float32", batch_tokens=self.batch_tokens, tasks=tasks)  # type: ignore[arg-type]

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {"base": weight_digest(self.base), "calibration": sha256_folder(self.calibration)}

    def inputs(self, cell: Cell) -> dict[str, Any]:
        """What a result depends on besides the settings of its cell."""
        absent = {name: reason for name in cell.tasks if (reason := self.catalogue.absent(name))}
        return {**self._digests, "absent": absent}


def attempt(cell: Cell, place: Place) -> None:
    """Run a cell; what was measured, or why it failed, is written below `place.out`."""
    folder, locks = cell.folder(place.out), place.out / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):
            # Where quantize locks its GPU: cells that share one wait for each other, which takes
            # less time than all at once.
            Path(".fairgate").symlink_to(locks)
            result = _measured(cell, place, Path(work))
        write_json(folder / "result.json", result)
    except Exception as error:  # whatever it is, the other cells can be run
        log.error("%s: %s", cell.name, error if isinstance(error, FairgateError) else traceback.format_exc())
        write_json(folder / "failure.json", {"settings": cell.settings, "reason": f"{type(error).__name__}: {error}"})
        return
    (folder / "failure.json").unlink(missing_ok=True)
    log.info("%s: %.0f + %.0f s", cell.name, result["quantize_s"], result["evaluate_s"])


def _measured(cell: Cell, place: Place, work: Path) -> dict[str, Any]:
    """Quantize and evaluate; the scores lie beside the result, which is what says that a cell is
    done.
    """
    inputs = place.inputs(cell)
    tasks = {name: wanted for name, wanted in cell.tasks.items() if name not in inputs["absent"]}
    if not tasks:
        raise FairgateError(f"no data: {inputs['absent']}", where=cell.name, remedy="fetch them, or supply them by path")
    place.catalogue.require(list(tasks), cell.role)  # before minutes of work
    on_gpu = place.on_gpu
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    folder, training = _model(cell, place, work)
    quantized = time.monotonic()
    peaks = [torch.cuda.max_memory_allocated() / 2**30] if on_gpu else []
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    settings = place.evaluation(cell, tasks)
    selection, workspace = Selection(place.catalogue, cell.role, list(tasks)), Workspace(prepared=place.prepared)
    metrics = evaluate(Subject(cell.label, folder), selection, settings, work / "evaluation", workspace)
    prompts = [item.prompts[0][0] for item in place.catalogue.load("cooccurrence").items] if cell.sampled else []
    words = {"sampled": sampled(folder, prompts, cell.sampled, cell.seed, place.device)} if prompts else {}
    peaks += [torch.cuda.max_memory_allocated() / 2**30] if on_gpu else []
    items = keep(read_items(work / "evaluation" / "items.parquet"), cell, place.out)
    return {
        "cell": cell.name,
        "settings": cell.settings,
        "inputs": inputs,
        "items": items,
        "metrics": {name: value for name, value in metrics.items() if not name.endswith(".stderr")},
        "training": training,
        **words,
        "quantize_s": round(quantized - started, 1),
        "evaluate_s": round(time.monotonic() - quantized, 1),
        "peak_gib": [round(peak, 2) for peak in peaks],
        "machine": torch.cuda.get_device_name() if on_gpu else f"CPU {platform.machine()}",
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _model(cell: Cell, place: Place, work: Path) -> tuple[Path, dict[str, Any] | None]:
    """The folder of the cell's model, and how its learning went."""
    recipe = cell.recipe
    assert recipe is not None
    if is_unquantized(recipe["method"]):
        return place.base, None
    calibration = _calibration(cell, place, work / "calibration")
    out = work / "model"
    if recipe["method"] == "autoround":
        # A package beside the pins
        from experiments.fair_rounding.autoround_peer import quantize as peer

        file = next(path for name in ("training.jsonl", "text.jsonl") if (path := calibration / name).is_file())
        texts = [text.text for text in read_records(Text, file)]
        settings = {name: value for name, value in recipe.items() if name != "method"}
        peer(place.base, texts, out, **settings, seed=cell.seed, device=pick_device(place.device, parameter="--device").type)
        return out, None
    run = parse(RunSettings, {**place.run, "device": place.device, "seed": cell.seed}, where="quantize")
    settings_of_method = cast(GridRecipe, parse_recipe(recipe, where=cell.name))
    record = quantize(cell.label, settings_of_method, run, place.base, calibration, out, work / "blocks")
    return out, record.training.model_dump(mode="json") if record.training else None


def _calibration(cell: Cell, place: Place, out: Path) -> Path:
    if cell.calibration == "plain":
        return place.calibration
    if cell.calibration == "text":
        of_text(place.calibration, out, place.text, cell.seed)
    else:
        VARIANTS[cell.calibration](place.calibration, out, cell.seed)
    return out


def keep(table: pa.Table, cell: Cell, out: Path) -> str:
    """Store what depends on the model beside the cell, and the items once for all cells; returns
    the items' name.

    Log-likelihoods are kept in single precision, in which they were computed.
    """
    table = table.sort_by([("benchmark", "ascending"), ("item_id", "ascending")])
    scores = table.select(MEASURED)
    scores = scores.set_column(0, "option_loglik", scores["option_loglik"].cast(pa.list_(pa.float32())))
    # Answers of likelihood tasks follow from the scores
    if table["status"].null_count == table.num_rows:
        scores = scores.select(["option_loglik"])
    items = table.drop_columns(["model", "correct", "biased", "entropy", *MEASURED])
    name = sha256_json(items.to_pylist())[:16]
    path = out / "items" / f"{name}.parquet"
    if not path.is_file():
        with atomic_path(path) as temporary:
            pq.write_table(items, temporary, compression="zstd")
    with atomic_path(cell.folder(out) / "scores.parquet") as temporary:
        pq.write_table(scores, temporary, compression="zstd")
    return name
