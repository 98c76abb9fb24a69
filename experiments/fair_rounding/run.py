"""Run the cells that declaration.yaml declares, one by one.

    python -m experiments.fair_rounding all --lanes 8     # search, choose, final
    python -m experiments.fair_rounding all --lanes 8 --until 200 --deadline 560
    python -m experiments.fair_rounding search --lanes 8  # one phase alone: search and choice
    python -m experiments.fair_rounding choose            # the choice anew, from what was run
    python -m experiments.fair_rounding final --lanes 8
    python -m experiments.fair_rounding list              # what was run, what was not, and why
    python -m experiments.fair_rounding.table             # tables, plot and records

`--lanes 8` starts eight processes, which share the GPUs of the machine. `--until` ends the search
early. `--deadline` begins no cell that would have to be killed.

`search` reads development sets alone. `choose` writes chosen.json by the declared rule. `final`
reads each gate set once per cell.

Any number of processes take cells in the declared order from one results folder, one cell at a
time. A lock that dies with its process says who has which cell. A process that finds no cell of the
search left goes on with final cells that depend on no choice. A finished cell with the same
settings and inputs is skipped. A failed cell is skipped until --retry.

While several processes start, every task is tokenized once for all of them (`ready/` of the
results). On one GPU they quantize one after another. To merge the results folders of several
machines, copy them over each other.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.fair_rounding.cells import PHASES, Cell, Declaration, Phase, choose, chosen_recipes, longest, read, recipes
from experiments.fair_rounding.measure import Place, attempt
from fairgate.support.errors import FairgateError
from fairgate.support.files import read_json, write_json
from fairgate.support.locks import LockHeld, locked
from fairgate.support.log import log
from fairgate.support.params import load
from stages.quantize.run.placement import make_products_reproducible
from stages.quantize.settings import RunSettings

HERE = Path(__file__).parent
# Beside the file that fetch takes from there: data/raw is written anew
TEXT = Path(".fairgate/supplied/wikitext2/wiki.valid.raw")
LIMIT_S = 480  # a cell that takes longer is named in the tables


@dataclass(frozen=True)
class Limits:
    """Seconds after `since` (a time stamp) from which no cell is begun, and until which one must
    end.
    """

    since: float
    until: float = float("inf")
    deadline: float = float("inf")

    def allow(self, cell: Cell, out: Path) -> bool:
        """Whether it may begin now: a cell is taken to last as long as the longest of its method so
        far. Once false, it stays false.
        """
        passed = time.time() - self.since
        method = cell.recipe["method"] if cell.recipe else ""
        return passed <= self.until and (self.deadline == float("inf") or passed + longest(method, out) <= self.deadline)


NO_LIMITS = Limits(0)


def run(cells: Sequence[Cell], place: Place, limits: Limits = NO_LIMITS) -> None:
    """Run the cells that nobody has run or is running, in order."""
    while take(cells, place, limits):
        pass


def run_all(declaration: Declaration, place: Place, limits: Limits, *, final: bool = True, poll_s: float = 1.0) -> None:
    """Search, choices and (unless `final` is false) final cells; `limits.until` is the search's.

    A choice is made as soon as the cells it is made among, and those declared before them, have
    ended. While others are busy with these, final cells that depend on no choice are run; once all
    choices are made, final cells follow in the declared order, which is that of their importance.
    """
    to_the_end = replace(limits, until=float("inf"))
    chosen: dict[str, dict[str, Any]] = {}
    rules = list(declaration.rules)
    chosen_from: list[str] = []
    settled = 0
    while True:
        search = declaration.cells("search", chosen)
        while settled < len(rules):
            last = max((n for n, cell in enumerate(search) if cell.entry == rules[settled]), default=-1)
            if not all(cell.recipe is None or _over(cell, place, limits) for cell in search[: last + 1]):
                break
            family = rules[settled]
            settled += 1
            try:
                chosen = settle(declaration, place.out, [*chosen_from, family])
                chosen_from.append(family)
            except FairgateError as error:  # what depends on no choice of this family still has its own
                log.error("nothing is chosen for %s: %s", family, error)
            search = declaration.cells("search", chosen)
        if take(search, place, limits) or (final and take(declaration.cells("final", chosen), place, to_the_end)):
            continue
        if settled == len(rules):
            break
        time.sleep(poll_s)


def take(cells: Sequence[Cell], place: Place, limits: Limits) -> bool:
    """Run the first of the cells that nobody has run or is running, and that the limits allow;
    False: there is none.
    """
    for cell in cells:
        if cell.recipe is None or _settled(cell, place):
            continue
        with _claimed(_lock(cell, place)) as mine:
            # The limits are asked with the lock held: whoever finds it free and them passed (_over)
            # knows that nobody begins.
            if mine and not _settled(cell, place) and limits.allow(cell, place.out):
                attempt(cell, place)
                return True
    return False


def settle(declaration: Declaration, out: Path, families: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Family -> recipe that the search chose; the first process to come here writes it down, all
    find the same.
    """
    choices = choose(declaration, out, families)
    path = out / "chosen.json"
    with _claimed(out / "locks" / "choose") as mine:
        if mine and (not path.is_file() or read_json(path) != choices):
            write_json(path, choices)
            for family, choice in choices.items():
                print(f"{family}: {choice['chosen']}, eligible: {', '.join(choice['eligible']) or 'none'}", flush=True)
    return recipes(choices)


def _over(cell: Cell, place: Place, limits: Limits) -> bool:
    """Whether a cell has its result, or will not get one any more: it may not begin, and nobody is
    at it.
    """
    if _settled(cell, place):
        return True
    if limits.allow(cell, place.out):
        return False
    with _claimed(_lock(cell, place)) as free:
        return free


def _lock(cell: Cell, place: Place) -> Path:
    return place.out / "locks" / f"{cell.phase}-{cell.name}"


def _settled(cell: Cell, place: Place) -> bool:
    result = cell.result(place.out)
    return cell.failed(place.out) or (result is not None and result["inputs"] == place.inputs(cell))


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path, busy="another process has this cell"))
            free = True
        except LockHeld:
            free = False
        yield free


def lanes(command: Sequence[str], cores: Sequence[Sequence[int]], meanwhile: Callable[[], None] = lambda: None) -> None:
    """The same command in several processes, dealt out to the GPUs that are there.

    Args:
        cores: the cores of each process.
        meanwhile: done once all have been started; where it fails, they end.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = given.split(",") if given else [str(n) for n in range(torch.cuda.device_count())]
    processes = []
    for lane, share in enumerate(cores):
        chosen = {"CUDA_VISIBLE_DEVICES": devices[lane % len(devices)]} if devices else {}
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(len(share)), **chosen})
        os.sched_setaffinity(process.pid, share)  # before it has any threads, which inherit it
        processes.append(process)
    try:
        meanwhile()
    except BaseException:
        for process in processes:
            process.kill()
            process.wait()
        raise
    if failed := [process.pid for process in processes if process.wait() != 0]:
        log.warning("%d of %d processes failed; the cells that they had are not run", len(failed), len(cores))


def shares(of: Sequence[int], number: int) -> list[Sequence[int]]:
    """Cores dealt out, neighbours together; where there are fewer cores than shares, one for each
    share.
    """
    return [of[n * len(of) // number : (n + 1) * len(of) // number] or [of[n % len(of)]] for n in range(number)]


def forget_failures(cells: Sequence[Cell], out: Path) -> None:
    """Cells that failed are run again, once by whichever process comes to them first."""
    for cell in cells:
        (cell.folder(out) / "failure.json").unlink(missing_ok=True)


def report(declaration: Declaration, out: Path) -> str:
    """One line a cell: what has been run, what has not, and why."""
    chosen = chosen_recipes(out)
    lines = []
    for phase in ("search", "final"):
        for cell in declaration.cells(phase, chosen):
            result = cell.result(out)
            state = f"{result['quantize_s'] + result['evaluate_s']:6.1f} s" if result else cell.why_not(out)
            lines.append(f"{phase:<7} {cell.name:<36} {state}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("search", "choose", "final", "all", "list"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with base, calibration and raw")
    parser.add_argument("--out", type=Path, default=Path("data/fair_rounding"))
    parser.add_argument("--text", type=Path, default=TEXT, help="text of the in-domain rows; you supply it")
    parser.add_argument("--declaration", type=Path, default=HERE / "declaration.yaml")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--lanes", type=int, default=1, help="processes, dealt out to GPUs and cores")
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds after which no new cell is begun; `all`: of the search")
    parser.add_argument("--deadline", type=float, default=float("inf"), help="seconds: a cell that would not end before is not begun")
    parser.add_argument("--since", type=float, default=None, help="time stamp from which these seconds count; default: the start")
    parser.add_argument("--retry", action="store_true", help="run cells again that failed")
    arguments = parser.parse_args()
    make_products_reproducible()  # before the first product on a GPU
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
    if arguments.what == "choose":
        settle(declaration, out)
        return 0
    cores = sorted(os.sched_getaffinity(0))
    limits = Limits(arguments.since or time.time(), arguments.until, arguments.deadline)
    data = arguments.data.absolute()
    place = Place(data / "base", data / "calibration", data / "raw", out, arguments.text.absolute(), device=arguments.device)
    settings = load(RunSettings, "quantize").model_dump() | {"diagnostics": False, "alpha_zero": False}
    place = replace(place, run=settings | ({"batch_tokens": 32768} if place.on_gpu else {}))
    phases: tuple[Phase, ...] = PHASES if arguments.what == "all" else (arguments.what,)
    cells = [cell for phase in phases for cell in declaration.cells(phase, chosen_recipes(out))]
    if arguments.retry:
        forget_failures(cells, out)
    if arguments.lanes > 1:
        to_run = [cell for cell in cells if not _settled(cell, place)]
        options = ["--data", "--text", "--declaration", "--device", "--until", "--deadline"]
        given = [part for name in options for part in (name, str(getattr(arguments, name[2:])))]
        command = [sys.executable, "-m", "experiments.fair_rounding", arguments.what]
        command += ["--out", str(out), *given, "--since", str(limits.since)]
        lanes(command, shares(cores, arguments.lanes), partial(place.prepare, to_run, workers=len(cores)))
    elif arguments.what == "final":
        run(cells, place, limits)
    else:
        run_all(declaration, place, limits, final=arguments.what == "all")
    return 0
