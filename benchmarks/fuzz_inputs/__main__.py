"""The command line of the fuzz, and its record."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.fuzz_inputs.runner import counted, failures, read_log, run_cases

_RESULTS = Path(__file__).parents[1] / "results/inputs.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_inputs", description=__doc__)
    parser.add_argument("--cases", type=_span, help="FIRST:END, run those that the log does not hold, then write the record")
    parser.add_argument("--case", type=int, action="append", help="run one case here and print how it ends; may be repeated")
    parser.add_argument("--again", action="store_true", help="with --cases: run those that failed once more")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--log", type=Path, default=Path("build/fuzz_inputs.jsonl"))
    parser.add_argument("--record", type=Path, default=_RESULTS)
    parser.add_argument("--note", default="", help="what a reader of the record should know of the run")
    parser.add_argument("--keep", type=Path, help="with --case: keep the input in this new folder")
    arguments = parser.parse_args()
    for number in arguments.case or []:
        _show(number, arguments.keep)
    if arguments.cases is None:
        return 0
    held = read_log(arguments.log)
    numbers = [n for n in arguments.cases if n not in held or (arguments.again and failures([held[n]]))]
    run_cases(numbers, arguments.log, arguments.processes)
    rows = [row for number, row in read_log(arguments.log).items() if number in arguments.cases]
    earlier = [row for number, row in read_log(arguments.log, last=False).items() if number in arguments.cases]
    _record(arguments.record, rows, len(failures(earlier)), arguments.note)
    return int(bool(failures(rows)))


def _span(text: str) -> range:
    first, _, end = text.partition(":")
    return range(int(first), int(end))


def _show(number: int, keep: Path | None) -> None:
    """Run a case in this process."""
    from fairgate.support.offline import go_offline

    go_offline()
    from benchmarks.fuzz_inputs.cases import run_case

    with tempfile.TemporaryDirectory(prefix="fuzz-inputs-") as folder:
        case = run_case(number, keep or Path(folder))
    print(f"case {number} ({case.kind}): {case.outcome.end}")
    print("\n".join([*(f"  {step}" for step in case.steps), case.outcome.what, case.outcome.details]).encode("utf-8", "replace").decode())


def _record(path: Path, rows: list[dict[str, Any]], failed_at_first: int, note: str) -> None:
    """Write how many cases ran and failed, each by its last run."""
    from benchmarks.records import Records

    shape = "mutated model folders of tiny models, parameter files and data files"
    records = Records(path, "fuzz_inputs", ("transformers", "tokenizers", "safetensors", "dvc"), shape=shape)
    numbers = sorted(row["number"] for row in rows)
    records.command = f"python -m benchmarks.fuzz_inputs --cases {numbers[0]}:{numbers[-1] + 1}"
    details = {
        "first_case": numbers[0],
        "last_case": numbers[-1],
        "ends": counted(rows),
        "seconds": round(sum(row.get("seconds", 30.0) for row in rows)),
        "last_run_on_commit": dict(Counter(row["commit"] for row in rows)),
        "note": note,
    }
    records.add("fuzz_cases", [len(rows)], "cases", seeds=len(rows), **details)
    records.add("fuzz_failures", [len(failures(rows))], "cases", seeds=len(rows), target=0, failed_at_first=failed_at_first, note=note)


if __name__ == "__main__":
    sys.exit(main())
