"""Plain GPTQ and Fair-GPTQ of the default model on this CPU, against GPTQModel on the same model,
tokens, bits and groups.

    python -m benchmarks.quantize_cpu --runs 3 --peer-runs 3        # after `dvc repro calibrate`

Timed are, on both sides, reading the model, calibration, quantization and writing the checkpoint;
imports are not. GPTQModel runs in its own data type for CPUs (bfloat16) and batches of 8; it gets
the token ids that fairgate makes of the calibration data.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from transformers import AutoTokenizer

from benchmarks.gptqmodel_peer import alone
from benchmarks.records import Records
from fairgate.contracts.records import Pair, Text, read_records
from fairgate.support.params import load
from stages.quantize.core.names import Alignment
from stages.quantize.core.pairs import encode_pairs, encode_texts
from stages.quantize.settings import RunSettings, read_recipe
from stages.quantize.stage import quantize


def own(recipe: str, data: Path, folder: Path) -> float:
    """Seconds of one quantization by a recipe of params.yaml, without the second rounding that only
    the report needs.
    """
    run = load(RunSettings, "quantize").model_copy(update={"device": "cpu", "alpha_zero": False})
    started = time.perf_counter()
    quantize(recipe, read_recipe(recipe, "params.yaml"), run, data / "base", data / "calibration", folder / recipe, folder / "work")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer-runs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quantize_cpu.json"))
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.data / "base")
    pairs = encode_pairs(read_records(Pair, arguments.data / "calibration/pairs.jsonl"), tokenizer, Alignment.aligned, "bias_type")
    texts = encode_texts(read_records(Text, arguments.data / "calibration/text.jsonl"), tokenizer)
    tokens = [side for pair in pairs for side in (pair.a, pair.b)] + texts
    timings: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in ("gptq", "fair_gptq"):
            timings[recipe] = [own(recipe, arguments.data, Path(scratch)) for _ in range(arguments.runs)]
            print(f"{recipe}: {timings[recipe]}", flush=True)
        done = [
            alone([arguments.data / "base"], tokens, Path(scratch), "--out", "peer", "--batch", "8")[0] for _ in range(arguments.peer_runs)
        ]
        timings["gptqmodel"] = [sum(seconds.values()) for seconds in done]
    theirs = statistics.median(timings["gptqmodel"])
    records = Records(
        arguments.out,
        "quantize_cpu",
        shape="SmolLM2-135M-Instruct, 4 bits symmetric, groups of 64",
        tokens=sum(map(len, tokens)),
        seconds={name: [round(value, 1) for value in values] for name, values in timings.items()},
    )
    peer = f"gptqmodel {version('gptqmodel')}, plain GPTQ"
    for name, recipe in (("cpu_time_vs_gptqmodel", "gptq"), ("cpu_time_vs_gptqmodel_fair", "fair_gptq")):
        records.add(name, [seconds / theirs for seconds in timings[recipe]], "of GPTQModel's time", target=0.5, peer=peer)


if __name__ == "__main__":
    main()
