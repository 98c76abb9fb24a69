"""How long `fairgate check` takes, as a whole process, on a random Llama of 7 billion parameters.

    python -m benchmarks.check_model --folder /tmp/llama-7b

The folder is made where there is none (13.5 GB). The first run reads it from the disk, unless the
system still has it in memory; the record keeps every run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.random_llama import make_model
from benchmarks.records import Records, timed

RESULTS = Path("benchmarks/results/inputs.json")

SHAPE = {"layers": 32, "hidden": 4096, "mlp": 11008}
TARGET = 5.0  # seconds, of the check that reads no weights


def main() -> None:
    """Time both checks and write `check_7b_s` and `check_7b_values_s`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the model is, or is made")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    if not (arguments.folder / "config.json").is_file():
        make_model(arguments.folder, SHAPE["layers"], SHAPE["hidden"], SHAPE["mlp"])
    records = Records(RESULTS, "check_model", model="random Llama", shape=f"{SHAPE}, bfloat16")
    for name, options, target in (("check_7b_s", [], TARGET), ("check_7b_values_s", ["--values"], None)):
        seconds = [_check(arguments.folder, options) for _ in range(arguments.runs)]
        records.add(name, seconds, "s", low=min(seconds), high=max(seconds), target=target)


def _check(folder: Path, options: list[str]) -> float:
    command = [sys.executable, "-m", "fairgate", "check", str(folder), *options]
    seconds, _ = timed(lambda: subprocess.run(command, check=True, capture_output=True))
    return seconds


if __name__ == "__main__":
    main()
