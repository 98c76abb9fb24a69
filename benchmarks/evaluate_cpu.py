"""How long the default subset (params.yaml) takes on this CPU, for the base and every recipe that
is quantized.

    python -m benchmarks.evaluate_cpu            # after `dvc repro quantize`

The timer runs from the folder to the written tables; imports are not in it.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.records import Records, timed
from fairgate.contracts.records import Role
from fairgate.support.params import load
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.selection import Selection
from stages.evaluate.settings import Evaluate
from stages.evaluate.stage import Subject, evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--dtype", help="instead of evaluate.dtype")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evaluate_cpu.json"))
    arguments = parser.parse_args()
    changes = {"device": "cpu", **({"dtype": arguments.dtype} if arguments.dtype else {})}
    settings = Evaluate.model_validate(load(Evaluate, "evaluate").model_dump() | changes)
    catalogue = Catalogue(arguments.data / "raw", arguments.data / "calibration/split.json")
    models = {"base": arguments.data / "base"} | {path.name: path for path in sorted((arguments.data / "models").glob("*"))}
    records = Records(arguments.out, "evaluate_cpu", ("transformers", "lm-eval"))
    timings: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in models.items():
            run = partial(evaluate, Subject(name, folder), Selection(catalogue, Role(settings.role)), settings, Path(scratch) / name)
            timings[name] = [timed(run)[0] for _ in range(arguments.runs)]
            runs = [seconds for times in timings.values() for seconds in times]
            more = {"models": {n: [round(s, 1) for s in times] for n, times in timings.items()}, "dtype": settings.dtype}
            suffix = "" if settings.dtype == "float32" else f"_{settings.dtype}"
            records.add(f"cpu_default_subset{suffix}_s", runs, "s", target=240, **more)


if __name__ == "__main__":
    main()
