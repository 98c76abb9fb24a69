"""The experiment of learned fair rounding: the cells that fair_rounding.yaml declares, run one by one.

    python -m benchmarks.fair_rounding all --lanes 8      # search, choose, final: eight processes share the GPUs that are there
    python -m benchmarks.fair_rounding search --lanes 8 --until 240
    python -m benchmarks.fair_rounding choose
    python -m benchmarks.fair_rounding final --lanes 8
    python -m benchmarks.fair_rounding list               # what has been run, what has not, and why
    python -m benchmarks.fair_rounding_table              # tables, plot and records

`search` reads development sets alone; `choose` writes chosen.json by the declared rule; `final` reads each gate set once per cell. Cells
are taken in the declared order, one at a time, by any number of processes on one results folder: a lock that dies with its process says
who has which. A cell that is done, with the same settings and inputs, is skipped; one that failed is skipped until --retry. Results
folders of several machines merge by copying them over each other.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks import calibration_variants
from benchmarks.fair_rounding_cells import Cell, Declaration, Phase, choose, chosen_recipes, read
from stages.common.cli import log
from stages.common.digests import sha256_folder, sha256_json, weight_digest
from stages.common.errors import FairgateError, UnknownName
from stages.common.files import atomic_path, write_json
from stages.common.items import read_items
from stages.common.params import load, parse
from stages.common.records import Text, read_records
from stages.evaluate.benchmark import FOLDER, Catalogue
from stages.evaluate.prepare import Prepared
from stages.evaluate.run import evaluate
from stages.evaluate.settings import Evaluate
from stages.quantize.settings import METHODS, Run
from stages.quantize.stage import pick_device, quantize

HERE = Path(__file__).parent
LIMIT_S = 480  # a cell that takes longer is named in the tables
MEASURED = ("option_loglik", "text", "answer", "status", "score")  # of an item table: what depends on the model


@dataclass(frozen=True)
class Place:
    """Where an experiment reads and writes, and what its cells share within one process. `text`: for cells calibrated on it."""

    base: Path
    calibration: Path
    raw: Path
    out: Path
    text: Path
    device: str = "auto"
    run: dict[str, Any] = field(default_factory=dict)
    tasks: Path = FOLDER
    ready: dict[str, Prepared] = field(default_factory=dict, repr=False)

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.raw, self.calibration / "split.json", self.tasks)

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {"base": weight_digest(self.base), "calibration": sha256_folder(self.calibration)}

    def inputs(self, cell: Cell) -> dict[str, Any]:
        """What a result depends on besides the settings of its cell."""
        absent = {name: reason for name in cell.tasks if (reason := self.catalogue.absent(name))}
        return {**self._digests, "absent": absent}


def run(cells: list[Cell], place: Place, *, until: float = float("inf"), retry: bool = False) -> None:
    """Run the cells that nobody has run or is running, in order; no new one after `until` seconds."""
    started = time.monotonic()
    # A GPU's lock lies in the working folder: in one of their own, two cells may share a GPU.
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        for cell in cells:
            if time.monotonic() - started > until:
                log.warning("no new cell after %.0f s", until)
                break
            if cell.recipe is None or _settled(cell, place, retry):
                continue
            with _claimed(place.out / "locks" / f"{cell.phase}-{cell.name}") as mine:
                if mine and not _settled(cell, place, retry):
                    _attempt(cell, place, Path(scratch))


def _settled(cell: Cell, place: Place, retry: bool) -> bool:
    found = cell.result(place.out)
    return (not retry and cell.failed(place.out)) or (found is not None and found["inputs"] == place.inputs(cell))


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _attempt(cell: Cell, place: Place, scratch: Path) -> None:
    folder = cell.folder(place.out)
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as work:
            result = _measured(cell, place, Path(work))
    except Exception as error:  # whatever it is, the other cells can be run
        log.error("%s: %s", cell.name, error if isinstance(error, FairgateError) else traceback.format_exc())
        write_json(folder / "failure.json", {"settings": cell.settings, "reason": f"{type(error).__name__}: {error}"})
        return
    write_json(folder / "result.json", result)
    (folder / "failure.json").unlink(missing_ok=True)
    log.info("%s: %.0f + %.0f s", cell.name, result["quantize_s"], result["evaluate_s"])


def _measured(cell: Cell, place: Place, work: Path) -> dict[str, Any]:
    """Quantize and evaluate; the scores lie beside the result, which is what says that a cell is done."""
    inputs = place.inputs(cell)
    tasks = {name: wanted for name, wanted in cell.tasks.items() if name not in inputs["absent"]}
    if not tasks:
        raise FairgateError(f"no data: {inputs['absent']}", where=cell.name, remedy="fetch them, or supply them by path")
    place.catalogue.require(list(tasks), cell.role)  # before minutes of work
    on_gpu = pick_device(place.device).type == "cuda"
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
    settings = Evaluate(role=cell.role.value, seed=0, device=place.device, dtype="float32", batch_tokens="auto", tasks=tasks)  # type: ignore[arg-type]
    metrics = evaluate(
        cell.label, folder, work / "evaluation", settings, place.catalogue, role=cell.role, tasks=list(tasks), ready=place.ready
    )
    peaks += [torch.cuda.max_memory_allocated() / 2**30] if on_gpu else []
    items = keep(read_items(work / "evaluation" / "items.parquet"), cell, place.out)
    return {
        "cell": cell.name,
        "settings": cell.settings,
        "inputs": inputs,
        "items": items,
        "metrics": {name: value for name, value in metrics.items() if not name.endswith(".stderr")},
        "training": training,
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
    if recipe["method"] == "none":
        return place.base, None
    calibration = _calibration(cell, place, work / "calibration")
    out = work / "model"
    if recipe["method"] == "autoround":
        from benchmarks.autoround_peer import quantize as peer  # a package beside the pins

        file = next(path for name in ("training.jsonl", "text.jsonl") if (path := calibration / name).is_file())
        texts = [text.text for text in read_records(Text, file)]
        settings = {name: value for name, value in recipe.items() if name != "method"}
        peer(place.base, texts, out, **settings, seed=cell.seed, device=pick_device(place.device).type)
        return out, None
    if recipe["method"] not in METHODS:
        raise UnknownName.of("method", recipe["method"], METHODS, where=cell.name)
    run = parse(Run, {**place.run, "device": place.device, "seed": cell.seed}, where="quantize")
    wanted = parse(METHODS[recipe["method"]], recipe, where=cell.name)
    record = quantize(cell.label, wanted, run, place.base, calibration, out, work / "blocks")
    return out, record.training.model_dump(mode="json") if record.training else None


def _calibration(cell: Cell, place: Place, out: Path) -> Path:
    if cell.calibration == "plain":
        return place.calibration
    if cell.calibration == "text":
        calibration_variants.of_text(place.calibration, out, place.text, cell.seed)
    else:
        getattr(calibration_variants, cell.calibration)(place.calibration, out, cell.seed)
    return out


def keep(table: pa.Table, cell: Cell, out: Path) -> str:
    """Store what depends on the model beside the cell, and the items once for all cells; returns the items' name.

    Log-likelihoods are kept in single precision, in which they were computed.
    """
    table = table.sort_by([("benchmark", "ascending"), ("item_id", "ascending")])
    scores = table.select(MEASURED)
    scores = scores.set_column(0, "option_loglik", scores["option_loglik"].cast(pa.list_(pa.float32())))
    if table["status"].null_count == table.num_rows:  # answers of likelihood tasks follow from the scores
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


def lanes(number: int, arguments: list[str]) -> None:
    """The same command in `number` processes, dealt out to the GPUs that are there."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = given.split(",") if given else [str(n) for n in range(torch.cuda.device_count())]
    threads = str(max(1, (os.cpu_count() or 1) // number))
    command = [sys.executable, "-m", "benchmarks.fair_rounding", *arguments]
    processes = []
    for lane in range(number):
        chosen = {"CUDA_VISIBLE_DEVICES": devices[lane % len(devices)]} if devices else {}
        processes.append(subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": threads, **chosen}))
    if failed := [process.pid for process in processes if process.wait() != 0]:
        log.warning("%d of %d processes failed; the cells that they had are not run", len(failed), number)


def report(declaration: Declaration, out: Path) -> str:
    """One line a cell: what has been run, what has not, and why."""
    chosen = chosen_recipes(out)
    lines = []
    for phase in ("search", "final"):
        for cell in declaration.cells(phase, chosen):
            found = cell.result(out)
            state = f"{found['quantize_s'] + found['evaluate_s']:6.1f} s" if found else cell.why_not(out)
            lines.append(f"{phase:<7} {cell.name:<36} {state}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("search", "choose", "final", "all", "list"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with base, calibration and raw")
    parser.add_argument("--out", type=Path, default=Path("data/fair_rounding"))
    parser.add_argument("--text", type=Path, default=Path("data/raw/wikitext2/wiki.valid.raw"), help="text of the in-domain rows")
    parser.add_argument("--declaration", type=Path, default=HERE / "fair_rounding.yaml")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--lanes", type=int, default=1, help="processes, dealt out to the GPUs")
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds of a phase after which no new cell is taken")
    parser.add_argument("--retry", action="store_true", help="run cells again that failed")
    arguments = parser.parse_args()
    gc.set_threshold(50_000, 20, 100)  # as the command line of the evaluate stage has it
    try:
        return _main(arguments)
    except FairgateError as error:
        print(error, file=sys.stderr)
        return 2


def _main(arguments: argparse.Namespace) -> int:
    declaration, out = read(arguments.declaration), arguments.out.absolute()
    if arguments.what == "list":
        print(report(declaration, out))
        return 0
    phases: tuple[Phase, ...] = ("search", "final") if arguments.what == "all" else ()
    for phase in phases or (arguments.what,):
        if phase != "choose":
            _phase(phase, declaration, arguments, out)
        if phase != "final" and arguments.what != "search":
            choices = choose(declaration, out)
            write_json(out / "chosen.json", choices)
            for family, choice in choices.items():
                print(f"{family}: {choice['chosen']}, eligible: {', '.join(choice['eligible']) or 'none'}", flush=True)
    return 0


def _phase(phase: Phase, declaration: Declaration, arguments: argparse.Namespace, out: Path) -> None:
    if arguments.lanes > 1:
        options = ["--data", "--text", "--declaration", "--device", "--until"]
        given = [part for name in options for part in (name, str(getattr(arguments, name[2:])))]
        return lanes(arguments.lanes, [phase, "--out", str(out), *given, *(["--retry"] if arguments.retry else [])])
    data = arguments.data.absolute()
    settings = load(Run, "quantize").model_dump()
    on_gpu = pick_device(arguments.device).type == "cuda"
    settings |= {"diagnostics": False, "alpha_zero": False} | ({"batch_tokens": 32768} if on_gpu else {})
    place = Place(data / "base", data / "calibration", data / "raw", out, arguments.text.absolute(), device=arguments.device, run=settings)
    return run(declaration.cells(phase, chosen_recipes(out)), place, until=arguments.until, retry=arguments.retry)


if __name__ == "__main__":
    sys.exit(main())
